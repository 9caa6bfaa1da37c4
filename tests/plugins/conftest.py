"""The distributions in this folder are tested as installed wheels, by tests/test_third_party.py."""

collect_ignore_glob = ["*"]
