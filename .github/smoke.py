"""Does the installed wheel hold what it needs, code, weights and templates? Run by `python -I`, outside the checkout's
path: a file that was left out of the wheel is missing here, and nowhere else."""

import tempfile
from pathlib import Path

import robustness_lib
from robustness_lib import ThreatModel, data, models
from robustness_lib.attacks import PGD
from robustness_lib.evaluation import evaluate

assert "site-packages" in robustness_lib.__file__, f"not the installed one: {robustness_lib.__file__}"
x, y, classes = data.load("signs", split="test", n=50)
threat = ThreatModel("linf", 4 / 255)
withstood = {}
for name in ("signs-standard", "signs-pgd"):
    withstood[name] = int((~PGD(threat, steps=10).run(models.load_pretrained(name), x, y).success).sum())
    print(f"{name} withstands PGD on {withstood[name]} of {len(y)} images")
assert withstood["signs-standard"] < withstood["signs-pgd"]

with tempfile.TemporaryDirectory() as folder:
    report = evaluate(models.load_pretrained("signs-tiny-pgd"), x[:5], y[:5], threat, PGD(threat, steps=2),
                      classes=classes)
    report.save(Path(folder) / "report.json")
    assert "resist" in (report._repr_html_() or "")  # by its template
    print(report)
for name in models.list_pretrained():
    models.load_pretrained(name)
print("The wheel is whole.")
