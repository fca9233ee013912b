from __future__ import annotations

from pathlib import Path

from seqkd.data.interactions import load_interactions


def check(folder: Path) -> None:
    market = load_interactions(folder, domain="films")
    assert market["interactions"].to_list() == [
        {"user_id": "196", "item_id": "2", "timestamp": 881250949, "domain": "films", "rating": 3.0},
        {"user_id": "186", "item_id": "1", "timestamp": 891717742, "domain": "films", "rating": 4.0},
    ]
    assert [(item["item_id"], item["title"], item["categories"]) for item in market["items"]] == [
        ("1", "Caf\xe9, The (1995)", "Children's, Comedy"),
        ("2", "GoldenEye (1995)", "Thriller"),
    ]


def test_100k(tmp_path: Path):
    (tmp_path / "u.data").write_text("196\t2\t3\t881250949\n186\t1\t4\t891717742\n")
    flags = {1: {4, 5}, 2: {16}}  # unknown Action Adventure Animation Children's Comedy ... Thriller
    lines = [
        "|".join([str(item), title, "01-Jan-1995", "", "http://x", *(str(int(at in flags[item])) for at in range(19))])
        for item, title in ((1, "Caf\xe9, The (1995)"), (2, "GoldenEye (1995)"))
    ]
    (tmp_path / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    check(tmp_path)


def test_1m(tmp_path: Path):
    (tmp_path / "ratings.dat").write_text("196::2::3::881250949\n186::1::4::891717742\n")
    movies = "1::Caf\xe9, The (1995)::Children's|Comedy\n2::GoldenEye (1995)::Thriller\n"
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    check(tmp_path)


def test_latest(tmp_path: Path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n196,2,3.0,881250949\n186,1,4.0,891717742\n")
    movies = 'movieId,title,genres\n1,"Caf\xe9, The (1995)",Children\'s|Comedy\n2,GoldenEye (1995),Thriller\n'
    (tmp_path / "movies.csv").write_text(movies, encoding="utf-8")
    check(tmp_path)
