"""The synthetic study of instance-based label smoothing (Maher & Kull, ICMLA 2021; "ILS").

    task         the generative model and its Bayes posterior
    network      many small networks as one stack of parameters, with their gradients
    training     Adam and early stopping for the whole stack
    candidates   what is trained: the rows of the paper's tables and their grids
    measures     the paper's measures and temperatures of many networks at once
    replicate    one replicate: train everything, select, test
    study        all replicates, in processes, resumable
    published, tables, directions, curve, figures, report      what is written down

Letters everywhere: J networks, n points, K = 3 classes, P parameters of a network.
"""
