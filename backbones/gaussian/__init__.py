"""Synthetic study of instance-based label smoothing (Maher & Kull, ICMLA 2021; "ILS").

    task         the generative models, their Bayes posteriors, and the set-ups of Figs. 6 and 7
    network      many small networks as one stack of parameters, with their gradients
    training     Adam and early stopping for the whole stack
    families     the groups of rows
    candidates   the networks to train: the grids of the rows of the paper's tables
    measures     the paper's measures and temperatures of many networks at once
    replicate    one replicate: train everything, select, test
    study        all replicates, in several processes, resumable
    published, tables, directions, curve, figures, report      output of the study

Letters in all modules: J networks, n points, K = 3 classes, P parameters of a network.
"""
