package main

const version = "@VERSION@"
