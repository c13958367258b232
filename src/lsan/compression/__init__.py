"""From a trained run to one of a few hundred kilobytes: a smaller student, learnt codes, numbers of few bits."""
