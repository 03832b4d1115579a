"""The methods that come with the project, as README's table lists them; those that a reader adds are not among them."""

import re

from helpers.killing import ROOT

TABLE = (ROOT / "README.md").read_text().partition("## Methods\n")[2].partition("\n## ")[0]
OWN = sorted(set(re.findall(r"`(\w+)`", "".join(line for line in TABLE.splitlines() if line.startswith("|")))))
