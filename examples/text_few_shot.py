"""Few-shot recognition of texts in one page: which wish is it, told from one sentence of each kind?

What is asked for is wrapped up in courtesies that are most of a sentence; that they do not matter is what the training
wishes teach. `pip install scikit-learn`, then `python examples/text_few_shot.py`; it takes some seconds. Here a text is
its hashed groups of letters; embeddings of a language model go in the same way: x is [text, feature], y its class.
"""

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer

from quickstudy import BaseLearner, TrainConfig, evaluate, families, meta_train
from quickstudy.learner import recognition_loss
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base
from quickstudy.methods.demonstrations.prototypical import PrototypicalNetworks
from quickstudy.nets import MLP

WISHES = """set the alarm|turn off my alarm|move the alarm to six; play some music|stop the music|turn up the music
call me a taxi|find out where my taxi is|send the taxi away; pay the rent|tell me what rent I owe|look up the rent
switch on the lamp|dim the lamp|put the lamp out; book a flight to Rome|cancel the flight|change my flight
add milk to the shopping|show me the shopping|forget the shopping; translate this|translate it to Greek|translate hello
ring the doctor|ask the doctor for pills|tell the doctor I am ill; get cinema tickets|see the cinema list|go to a cinema
open the window|close the window|clean the window; water the garden|mow the garden|photograph the garden
feed the cat|let the cat in|take the cat to the vet; warm the soup|make some soup|taste the soup
read me the news|turn the news off|save that news; write a letter|post the letter|burn my letter
find my keys|copy the keys|bring the keys; charge the phone|repair the phone|look for the phone
wash the car|park my car|sell the car; plan the holiday|cancel the holiday|pay for the holiday"""
COURTESIES = (
    "could you please be so kind and {} for me",
    "I would really like you to {} right now",
    "hey, {}, if it is not too much trouble",
    "before you do anything else, {}, will you",
    "would it be possible to {} some time today",
    "{}, and thank you very much in advance",
)


def main(steps=100, tasks=300, ways=4):
    """Accuracy on wishes that training never saw, by shots: of the meta-learned and of nearest neighbours."""
    kinds = [kind.split("|") for kind in WISHES.replace("\n", "; ").split("; ")]
    texts = [courtesy.format(wish) for kind in kinds for wish in kind for courtesy in COURTESIES]
    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), n_features=512)
    x, y = hashed.transform(texts).toarray(), np.repeat([kind[0] for kind in kinds], 3 * len(COURTESIES))
    family = families.from_arrays(x, y, ways=ways, name="wishes")

    torch.manual_seed(0)
    base = BaseLearner(MLP(family.observation_size, 64, hidden=[]), family.observation_size, recognition_loss)
    learner = PrototypicalNetworks(base, 64, ways, labelled=True)
    meta_train(learner, family.fresh(), TrainConfig(steps, meta_batch=8, shots=1, queries=5, batching="vmap"))

    nearest = NearestNeighbour(recorded_base(family.observation_size), ways)
    accuracy = {}
    for name, one in {"prototypical": learner, "nearest neighbour": nearest}.items():
        result = evaluate(one, family, "test", shots=[1, 5], tasks=tasks, episodes=20)
        accuracy[name] = after_one, after_five = result.metrics["accuracy"].mean((1, 2))
        print(f"{name:18} {after_one:.1%} after one sentence of each wish, {after_five:.1%} after five")
    print(f"chance             {1 / ways:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
