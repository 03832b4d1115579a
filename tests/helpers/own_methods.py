"""The methods of this project, as listed in the README's table; methods that a user adds are not included."""

import re

from helpers.killing import ROOT

TABLE = (ROOT / "README.md").read_text().partition("## Methods and networks\n")[2].partition("\n## ")[0]
OWN = sorted(set(re.findall(r"`(\w+)`", "".join(line for line in TABLE.splitlines() if line.startswith("|")))))
