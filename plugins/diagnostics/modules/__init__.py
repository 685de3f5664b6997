"""Modules: what a network loses when one module is rewound, re-randomised or perturbed by noise."""
