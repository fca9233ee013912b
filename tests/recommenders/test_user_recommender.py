"""The base of models that know users, by the smallest of them: two tables."""

import pytest
import torch
from torch import nn

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import CheckpointError, ConfigError, DataError, KnowledgeError
from seqkd.evaluation.ranks import rank_targets
from seqkd.knowledge.export import export
from seqkd.recommenders.recommender import RecommenderOutput
from seqkd.recommenders.user_configuration import UserRecommenderConfig
from seqkd.recommenders.user_recommender import UserRecommender
from seqkd.trainer import DistillationTrainer

from ..batches.test_positives import rows
from ..tiny import arguments, tiny_sasrec, tiny_split


class Tables(UserRecommender):
    config_class = UserRecommenderConfig

    def __init__(self, config):
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size, padding_idx=0)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.post_init()

    def forward(self, user_ids):
        return RecommenderOutput(query_embeddings=self.user_embedding(user_ids))

    def item_embeddings(self, item_ids=None):
        return self.item_embedding.weight if item_ids is None else self.item_embedding(item_ids)

    def get_input_embeddings(self):
        return self.item_embedding

    def set_input_embeddings(self, value):
        self.item_embedding = value


def tables(split, **config):
    torch.manual_seed(0)
    model = Tables(
        UserRecommenderConfig(
            num_items=len(split.catalogue), num_users=len(split.users), hidden_size=8, initializer_range=0.1, **config
        )
    )
    model.set_catalogue(split.catalogue)
    model.set_users(split.users)
    return model


def dataset(split, part):
    return SequenceDataset(split.part(part), len(split.catalogue), split.users)


def trained(split, folder, **changes):
    model = tables(split)
    settings = {"per_device_train_batch_size": 32, "num_train_epochs": 3, **changes}
    trainer = DistillationTrainer(Distiller(model), arguments(folder, **settings), dataset(split, "train"))
    trainer.train()
    return model, trainer


def test_training_on_pairs_lowers_the_loss(tmp_path):
    _, trainer = trained(tiny_split(), tmp_path, num_train_epochs=20)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.693, abs=0.02)  # log 2: nothing is known yet
    assert losses[-1] < 0.5


def test_accumulation_gives_the_same_weights(tmp_path):
    split = tiny_split()
    one, _ = trained(split, tmp_path / "one")
    four, _ = trained(split, tmp_path / "four", per_device_train_batch_size=8, gradient_accumulation_steps=4)
    for a, b in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_users_are_needed_and_numbered_alike():
    split = tiny_split()
    model = tables(split)
    backwards = Catalogue(reversed(split.users.item_ids))
    for users in (None, backwards):
        rows = SequenceDataset(split.train, len(split.catalogue), users)
        with pytest.raises(ConfigError, match=r"users=split\.users"):
            model.training_rows(rows)
        with pytest.raises(ConfigError, match="number users alike"):
            rank_targets(model, rows)
    model.set_users(backwards)
    with pytest.raises(KnowledgeError, match="numbered otherwise"):
        export(model, split.train, split=split, part="train")
    model.users = None
    with pytest.raises(ConfigError, match="knows none"):
        model.recommend([[]], users=["u1"])
    with pytest.raises(ConfigError, match="num_users=24"):
        model.set_users(Catalogue(["a"]))


def test_ranks_and_lists_are_by_user():
    """User u1 alone likes item 3, and says so also without a history."""
    split = tiny_split()
    model = tables(split)
    with torch.no_grad():
        model.item_embedding.weight.zero_()[3, 0] = 1.0
        model.user_embedding.weight.zero_()[2, 0] = 1.0
    told = model.recommend([[], []], 1, users=["u1", "u0"], filter_seen=False)
    assert told.item_ids[0] == ["item3"] and told.scores == [[1.0], [0.0]] and told.from_popularity == [False, False]
    assert model.recommend([["item3"]], 1, users=["u1"]).item_ids != [["item3"]]
    ranks = rank_targets(model, dataset(split, "test"))
    assert len(ranks.ranks) == 24


@pytest.mark.parametrize(("users", "told"), [(None, "no user is given"), (["nobody"], "user 'nobody' is unknown")])
def test_strangers_are_refused(users, told):
    with pytest.raises(DataError, match=told):
        tables(tiny_split()).recommend([["item1"]], users=users)


def test_one_user_for_each_history():
    with pytest.raises(DataError, match="1 users for 2 histories"):
        tables(tiny_split()).recommend([[], []], users=["u1"])
    with pytest.raises(DataError, match=r"users=\['u1'\]"):  # else it would be asked for the users u and 1
        tables(tiny_split()).recommend([[], []], users="u1")


def test_saved_with_its_users(tmp_path):
    split = tiny_split()
    model = tables(split)
    model.save_pretrained(tmp_path)
    back = Tables.from_pretrained(tmp_path)
    assert back.users == split.users
    assert back.recommend([[]], 3, users=["u5"]).item_ids == model.recommend([[]], 3, users=["u5"]).item_ids
    Catalogue(["u1"]).save(tmp_path, "user_ids.json")
    with pytest.raises(CheckpointError, match="lists 1 users"):
        Tables.from_pretrained(tmp_path)


def test_it_teaches(tmp_path):
    """Every query of a user gets the user's list."""
    split = tiny_split()
    model = tables(split)
    told = export(model, split.train, split=split, part="train", k=4)
    first = int(split.train[3]["query_start"])
    lists = told.table("query_topk")[first : first + 2]
    assert lists[0].tolist() == lists[1].tolist()
    scores = model.eval().score(model(torch.tensor([4])).query_embeddings)
    assert lists[0].tolist() == scores.topk(4).indices[0].tolist()


def test_it_says_which_users_an_item_is_for():
    """Against a slow loop: all scores of an item, without the users that have it in training."""
    split = tiny_split()
    model = tables(split).eval()
    told = export(model, split.train, split=split, part="train", tables=("item_topk",), k=5).table("item_topk")
    assert told.shape == (21, 5) and told.dtype == torch.int32
    has = {(row["user_id"], item) for row in split.train for item in row["item_ids"]}
    assert not told[0].any()
    for item in (1, 7, 20):
        scores = {}
        for number, user in enumerate(split.users.item_ids, start=1):
            if (user, item) not in has:
                query = model(torch.tensor([number])).query_embeddings
                scores[number] = float(model.score(query, torch.tensor([item])).detach())
        assert told[item].tolist() == sorted(scores, key=scores.get, reverse=True)[:5]


def test_a_model_without_users_has_no_users_to_list():
    split = tiny_split()
    with pytest.raises(KnowledgeError, match="SASRecModel knows none"):
        export(tiny_sasrec(split), split.train, split=split, part="train", tables=("item_topk",), k=5)


def test_a_history_in_several_rows_is_refused():
    """Its older items would be trained on, but not masked."""
    part = rows([[5, 6, 7], [7, 8], [1, 2]], [1, 1, 1], [0, 3, 5], ["u", "u", "v"])
    model = Tables(UserRecommenderConfig(num_items=9, num_users=2))
    model.set_users(Catalogue(["u", "v"]))
    with pytest.raises(ConfigError, match="cut into several rows"):
        model.training_rows(SequenceDataset(part, 9, model.users))


def test_a_sequential_student_learns_nothing_from_sets(tmp_path):
    part = rows([[5, 6, 7], [1, 2]], [3, 2], [0, 1], ["u", "v"])
    with pytest.raises(ConfigError, match="no row has a label"):
        DistillationTrainer(
            Distiller(tiny_sasrec(tiny_split())), arguments(tmp_path, tail_queries=False), SequenceDataset(part, 20)
        )


# ---- new users ------------------------------------------------------------------------------------------------------


def test_added_users_leave_old_rows_bit_equal_through_files(tmp_path):
    split = tiny_split()
    model = tables(split)
    old = model.user_embedding.weight.clone()
    vectors = torch.randn(2, 8)
    model.add_users(["ann", "bob"], vectors)
    model.add_users(["cem"])
    assert model.config.num_users == len(split.users) + 3 and model.users.item_ids[-3:] == ("ann", "bob", "cem")
    table = model.user_embedding.weight
    assert torch.equal(table[: len(old)], old) and torch.equal(table[len(old) : -1], vectors)
    torch.testing.assert_close(table[-1], table[1:-1].mean(0))
    assert table.requires_grad and model.user_embedding.num_embeddings == len(table)

    model.save_pretrained(tmp_path)
    loaded = Tables.from_pretrained(tmp_path)
    assert loaded.users == model.users and torch.equal(loaded.user_embedding.weight, table)
    asked = {"k": 4, "users": ["bob", "u0"]}
    assert loaded.recommend([[], []], **asked).item_ids == model.recommend([[], []], **asked).item_ids


@pytest.mark.parametrize(
    ("users", "embeddings", "message"),
    [
        (["u3"], None, r"already among the users: \['u3'\]"),
        (["ann", "ann"], None, "unique"),
        ([""], None, "empty"),
        ("ann", None, "bare string"),
        (["ann"], torch.zeros(1, 4), r"\(1, 8\)"),
        (["ann"], torch.full((1, 8), torch.nan), "NaN"),
    ],
)
def test_users_who_cannot_be_added_change_nothing(users, embeddings, message):
    model = tables(tiny_split())
    before = model.users, model.config.num_users, len(model.user_embedding.weight)
    with pytest.raises(DataError, match=message):
        model.add_users(users, embeddings)
    assert (model.users, model.config.num_users, len(model.user_embedding.weight)) == before


def test_a_model_without_users_gets_none():
    split = tiny_split()
    model = Tables(UserRecommenderConfig(num_items=len(split.catalogue), num_users=2, hidden_size=8))
    with pytest.raises(ConfigError, match="knows no users"):
        model.add_users(["ann"])
