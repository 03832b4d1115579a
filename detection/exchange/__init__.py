"""Backbone files in and out: conversion into a detector with proof, export, import of foreign checkpoints."""
