"""Words of the simulated shop: what its aisles hold, and when people look for it."""

from typing import NamedTuple


class Aisle(NamedTuple):
    """One category of the shop."""

    name: str
    """The category, as in items.csv."""
    peak_hour: int
    """Hour of day, 0..23, around which people want it most."""
    peak_weekday: int
    """Day of the week, Monday = 0, around which people want it most."""
    nouns: str
    """20 kinds of product, separated by commas; no noun is in two aisles."""


#: One tuple of interchangeable adjectives a style. A shopper who likes a style likes it in every aisle.
STYLES: dict[str, tuple[str, ...]] = {
    "everyday": ("Everyday", "Simple", "Handy", "Basic"),
    "classic": ("Classic", "Heritage", "Vintage", "Traditional"),
    "natural": ("Organic", "Natural", "Woodland", "Meadow"),
    "modern": ("Modern", "Nordic", "Urban", "Studio"),
    "luxury": ("Luxury", "Premium", "Grand", "Royal"),
}

AISLES: tuple[Aisle, ...] = (
    Aisle(
        "Coffee & Tea",
        7,
        0,
        "Espresso Beans, Filter Coffee, Coffee Grinder, Milk Frother, Moka Pot, Pour-Over Kettle, Paper "
        "Filters, Green Tea, Earl Grey Tea, Chai Blend, Teapot, Tea Infuser, Travel Mug, Cold Brew Jar, "
        "Coffee Scale, Vanilla Syrup, Espresso Cups, Herbal Tea, French Press, Coffee Canister",
    ),
    Aisle(
        "Baking",
        14,
        5,
        "Bread Flour, Rye Flour, Dry Yeast, Baking Powder, Cocoa Powder, Chocolate Chips, Vanilla Pods, "
        "Brown Sugar, Icing Sugar, Cake Tin, Muffin Tray, Rolling Pin, Mixing Bowl, Piping Bag, Cookie "
        "Cutters, Proving Basket, Dough Scraper, Cooling Rack, Almond Meal, Sprinkles",
    ),
    Aisle(
        "Kitchen",
        18,
        2,
        "Chef's Knife, Chopping Board, Frying Pan, Saucepan, Stock Pot, Wok, Colander, Garlic Press, "
        "Vegetable Peeler, Pepper Mill, Salad Spinner, Kitchen Scale, Measuring Jug, Whisk, Soup Ladle, "
        "Oven Gloves, Roasting Tin, Storage Jars, Lunch Box, Tea Towels",
    ),
    Aisle(
        "Pantry",
        17,
        3,
        "Olive Oil, Balsamic Vinegar, Sea Salt, Black Pepper, Spaghetti, Penne, Basmati Rice, Red "
        "Lentils, Chickpeas, Chopped Tomatoes, Basil Pesto, Dijon Mustard, Soy Sauce, Coconut Milk, "
        "Curry Paste, Smoked Paprika, Wildflower Honey, Peanut Butter, Strawberry Jam, Rolled Oats",
    ),
    Aisle(
        "Party",
        19,
        4,
        "Balloons, Paper Lanterns, Party Hats, Confetti, Bunting, Paper Plates, Drinking Straws, "
        "Birthday Candles, Cake Topper, Gift Bags, Wrapping Paper, Greeting Cards, Photo Props, Punch "
        "Bowl, Cocktail Shaker, Champagne Flutes, String Lights, Table Runner, Napkins, Ice Bucket",
    ),
    Aisle(
        "Garden",
        10,
        5,
        "Tomato Seeds, Basil Seeds, Wildflower Seeds, Tulip Bulbs, Potting Soil, Plant Food, Watering "
        "Can, Hand Trowel, Pruning Shears, Gardening Gloves, Garden Hose, Terracotta Pot, Hanging "
        "Basket, Raised Bed, Plant Labels, Seed Tray, Compost Bin, Bird Feeder, Garden Fork, Trellis",
    ),
    Aisle(
        "House Plants",
        11,
        6,
        "Monstera, Snake Plant, Peace Lily, Aloe Vera, Bonsai Tree, Boston Fern, Orchid, Spider Plant, "
        "Rubber Plant, Succulent Set, Ceramic Planter, Plant Stand, Macrame Hanger, Plant Mister, "
        "Moisture Meter, Grow Light, Orchid Bark, Cactus Mix, Terrarium Jar, Moss Pole",
    ),
    Aisle(
        "Books",
        21,
        6,
        "Mystery Novel, Fantasy Novel, Short Stories, Poetry Collection, Travel Memoir, Biography, "
        "Cookbook, Art Book, History of Rome, Field Guide, Puzzle Book, Picture Atlas, Detective Story, "
        "Science Primer, Essay Collection, Graphic Novel, Love Story, Ghost Stories, Philosophy Reader, "
        "Bookends",
    ),
    Aisle(
        "Stationery",
        9,
        1,
        "Fountain Pen, Gel Pens, Notebook, Sketchbook, Desk Planner, Wall Calendar, Sticky Notes, Washi "
        "Tape, Paper Clips, Stapler, Pencil Case, Highlighters, Letter Paper, Envelopes, Wax Seal Kit, "
        "Ink Bottle, Desk Organiser, Bookmark Set, Ruler, Index Cards",
    ),
    Aisle(
        "Toys",
        16,
        2,
        "Building Blocks, Toy Train, Train Tracks, Doll's House, Puppet, Teddy Bear, Spinning Top, Kite, "
        "Yo-Yo, Marble Run, Shape Sorter, Play Kitchen, Tea Set, Toy Tractor, Farm Animals, Dinosaur "
        "Set, Rocking Horse, Bath Boat, Skipping Rope, Play Tent",
    ),
    Aisle(
        "Games & Puzzles",
        20,
        4,
        "Chess Set, Draughts, Dominoes, Playing Cards, Dice Set, Backgammon, Jigsaw of Venice, Jigsaw of "
        "the Alps, Word Game, Trivia Game, Strategy Game, Card Tray, Jigsaw Mat, Brain Teaser, Wooden "
        "Tangram, Party Quiz, Memory Game, Puzzle Cube, Solitaire Board, Game Timer",
    ),
    Aisle(
        "Crafts",
        15,
        6,
        "Merino Yarn, Cotton Yarn, Knitting Needles, Crochet Hooks, Embroidery Hoop, Embroidery Thread, "
        "Sewing Kit, Fabric Scissors, Felt Sheets, Bead Mix, Jewellery Wire, Glue Gun, Watercolours, "
        "Acrylic Paints, Paint Brushes, Canvas Panel, Easel, Clay Block, Candle Wax, Candle Wicks",
    ),
    Aisle(
        "Bath & Body",
        22,
        6,
        "Bar Soap, Shower Gel, Bath Salts, Bubble Bath, Body Lotion, Hand Cream, Face Cream, Clay Mask, "
        "Lip Balm, Shampoo, Conditioner, Hair Oil, Bath Towel, Bath Robe, Loofah, Scented Candle, "
        "Essential Oil, Aroma Diffuser, Nail Kit, Bath Mat",
    ),
    Aisle(
        "Bedroom",
        22,
        0,
        "Duvet, Duvet Cover, Pillow, Pillowcase, Fitted Sheet, Wool Blanket, Bedspread, Bedside Lamp, "
        "Alarm Clock, Sleep Mask, Blackout Curtains, Mattress Topper, Weighted Blanket, Reading Light, "
        "Jewellery Box, Clothes Hangers, Laundry Basket, Slippers, Lavender Sachets, Floor Rug",
    ),
    Aisle(
        "Sports",
        6,
        1,
        "Running Socks, Running Belt, Water Bottle, Yoga Mat, Yoga Block, Resistance Bands, Jump Rope, "
        "Foam Roller, Kettlebell, Dumbbells, Gym Towel, Sports Bag, Tennis Balls, Badminton Set, "
        "Football, Basketball, Frisbee, Swim Goggles, Sweatband, Stopwatch",
    ),
    Aisle(
        "Outdoor",
        12,
        4,
        "Two-Person Tent, Sleeping Bag, Camping Mat, Head Torch, Camping Stove, Mess Tin, Thermos Flask, "
        "Rucksack, Trekking Poles, Compass, Trail Map, Rain Poncho, Hammock, Picnic Blanket, Cool Box, "
        "Pocket Knife, Fire Starter, First Aid Kit, Binoculars, Dry Bag",
    ),
    Aisle(
        "Pets",
        8,
        3,
        "Dog Biscuits, Dog Lead, Dog Collar, Dog Bed, Chew Bone, Tug Toy, Pet Shampoo, Grooming Brush, "
        "Cat Treats, Cat Tree, Scratching Post, Catnip Mouse, Feather Wand, Litter Tray, Food Bowl, "
        "Drinking Fountain, Pet Carrier, Bird Seed, Fish Flakes, Rabbit Hay",
    ),
    Aisle(
        "Tools & Repair",
        13,
        5,
        "Claw Hammer, Screwdriver Set, Tape Measure, Spirit Level, Hand Saw, Cordless Drill, Drill Bits, "
        "Wood Screws, Wall Plugs, Sandpaper, Wood Glue, Wood Stain, Paint Roller, Masking Tape, Toolbox, "
        "Work Gloves, Adjustable Spanner, Pliers, Utility Knife, Picture Hooks",
    ),
    Aisle(
        "Cleaning",
        9,
        5,
        "Dish Soap, Dish Brush, Sponges, Glass Cleaner, Floor Cleaner, Laundry Liquid, Stain Remover, "
        "Scrubbing Brush, Mop, Bucket, Broom, Dustpan, Feather Duster, Microfibre Cloths, Rubber Gloves, "
        "Bin Liners, Soda Crystals, White Vinegar, Clothes Pegs, Drying Rack",
    ),
    Aisle(
        "Music",
        20,
        3,
        "Ukulele, Acoustic Guitar, Guitar Strings, Guitar Picks, Capo, Guitar Strap, Music Stand, "
        "Metronome, Harmonica, Recorder, Tambourine, Bongo Drums, Drumsticks, Kalimba, Songbook, "
        "Manuscript Paper, Headphones, Record Player, Record Sleeves, Record Brush",
    ),
)
