"""Runs tests of client_test.py or client_test5.py in this process, and prints a line
`result<TAB>name<TAB>ok or FAIL` for each.

Called by run.py with: the suite's directory `interoperability`, port, module, and either the names
of tests or --list. Replaces the modules' own main programs, one of which has no option for the port.
"""

import importlib
import logging
import sys
import unittest

suite_dir, port, module_name, *names = sys.argv[1:]
sys.path.insert(0, suite_dir)
suite = importlib.import_module(module_name)

if names == ["--list"]:
    # One test of the older file has a name that the loader does not find.
    print(*(name for name in dir(suite.Test) if name.startswith("test") or name.endswith("_test")))
    sys.exit()

# Variables that a main program sets; policy.toml denies the last one.
suite.host, suite.port = "127.0.0.1", int(port)
suite.topic_prefix = "client_test5/"
suite.topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
suite.wildtopics = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
suite.nosubscribe_topics = ("$nosubscribe",)
suite.setData = lambda: None
logging.getLogger().setLevel(logging.ERROR)


class Lines(unittest.TestResult):
    def say(self, test, result, error=""):
        print(f"{error}\nresult\t{test.id().split('.')[-1]}\t{result}", flush=True)

    def addSuccess(self, test):
        self.say(test, "ok")

    def addFailure(self, test, error):
        self.say(test, "FAIL", self._exc_info_to_string(error, test))

    addError = addFailure


unittest.TestSuite(map(suite.Test, names)).run(Lines())
