"""Few-shot recognition of texts in one page: what somebody wants is told from one sentence of each kind.

A sentence is hashed groups of letters here; embeddings of a language model go in the same way. Training teaches what to
overlook: how a wish is wrapped up. `pip install scikit-learn`, then `python examples/text_few_shot.py`; some seconds.
"""

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer

from quickstudy import BaseLearner, TrainConfig, evaluate, families, meta_train
from quickstudy.learner import recognition_loss
from quickstudy.learners.baselines import NearestNeighbour, recorded_base
from quickstudy.learners.prototypical import PrototypicalNetworks
from quickstudy.nets import MLP

INTENTS = {
    "alarm": "wake me at seven|set an alarm for six|I need an alarm tomorrow|please wake me up early|cancel my alarm"
    "|could you wake me at noon|is my alarm on|alarm off please",
    "weather": "will it rain today|what is the weather like|do I need an umbrella|how cold is it outside|is it sunny"
    "|tell me the weather for Monday|could it snow tonight|weather tomorrow please",
    "music": "play some jazz|I want to hear a song|turn up the music|could you play my favourite song|stop the music"
    "|next song please|what song is this|play music for dinner",
    "taxi": "call me a taxi|I need a cab to the station|how long until my taxi comes|book a taxi for six please"
    "|could you get me a cab|cancel the cab|where is my taxi|a taxi to the airport",
    "bank": "what is my balance|send money to Anna|I want to pay a bill|how much money is on my account"
    "|could you pay the rent|transfer money please|show my account|has the bill been paid",
    "recipe": "how do I bake bread|find a recipe for soup|what can I cook with rice|I want to cook pasta tonight"
    "|how long do I boil an egg|could you find a cake recipe|a recipe for bread please|what goes with rice",
    "lights": "turn on the lights|it is too dark in here|switch off the lamp please|could you dim the lights"
    "|lights off|I need more light|is the lamp on|switch the kitchen light on",
    "flight": "book a flight to Rome|when does my plane leave|I want to fly to Paris|is the flight late"
    "|cancel my flight please|could you find a cheap flight|which gate is my plane at|a flight for Monday",
    "shopping": "add milk to the shopping list|what do I need to buy|put eggs on the list|I want to order shoes"
    "|could you order more paper|is milk on my list|buy coffee please|what is on the shopping list",
    "doctor": "I need to see a doctor|book an appointment with the dentist|my head hurts|when is my doctor free"
    "|could you cancel the dentist|is the doctor in today|an appointment for Monday please|I have a fever",
    "film": "what is on at the cinema|book two tickets for the film|I want to watch a movie|who is in this film"
    "|could you find a funny movie|when does the film start|a movie for tonight please|is this movie good",
    "translate": "how do I say thanks in French|translate this word|what does this mean in Spanish"
    "|I want to say hello in German|could you translate it please|what is bread in French|say it in Spanish"
    "|which word is right in German",
}


def main(splits=5, steps=200, tasks=100):
    """Accuracy on wishes of kinds that training never saw, the mean over some ways to split them."""
    x = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), n_features=512).transform(
        [sentence for sentences in INTENTS.values() for sentence in sentences.split("|")]
    )
    y = np.repeat(list(INTENTS), 8)
    accuracy = {"prototypical": [], "nearest neighbour": []}
    for seed in range(splits):
        family = families.from_arrays(x.toarray(), y, ways=3, queries=4, splits=(0.75, 0, 0.25), seed=seed)
        torch.manual_seed(seed)
        base = BaseLearner(MLP(512, 64, hidden=[]), 512, recognition_loss)
        learner = PrototypicalNetworks(base, 64, 3, labelled=True)
        meta_train(learner, family.fresh(), TrainConfig(steps, meta_batch=8, shots=2, queries=4, batching="vmap"))
        for name, one in {
            "prototypical": learner,
            "nearest neighbour": NearestNeighbour(recorded_base(512), 3),
        }.items():
            result = evaluate(one, family, "test", shots=[1, 3], tasks=tasks, episodes=12)
            accuracy[name].append(result.metrics["accuracy"].mean((1, 2)))
    for name, values in accuracy.items():
        after_one, after_three = np.mean(values, 0)
        print(f"{name:18} {after_one:.1%} after one sentence of each kind, {after_three:.1%} after three")
    print(f"chance             {1 / 3:.1%}")
    return {name: np.mean(values, 0) for name, values in accuracy.items()}


if __name__ == "__main__":
    main()
