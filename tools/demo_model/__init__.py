"""The parts of tools/train_demo_model.py. Each imports only parts above it:

    data        problems, their answers worked digit by digit, the split into training and held-out problems
    tokenizer   byte-pair encoding over the words of the data; the chat format
    scan        the state-space recurrence of Mamba, with its gradient
    model       SambaY and its initial weights; knows nothing of data, tokenizer or training
    export      model folders in the released layout, written and read
    evaluate    greedy answers and scores of a model, and the check against a golden checkpoint
    train       packed batches, optimizer, training loop
    readme      the README.md of the model folder
"""
