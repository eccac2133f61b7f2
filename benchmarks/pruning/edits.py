"""Stands in for a model: it rewrites a block of ExquisiteNetV2 by one or two edits such as models propose.

The same prompt gives the same reply. Some edits help, most cost accuracy or size, a few break the training.
"""

from __future__ import annotations

import hashlib
import random
import re

# what is found in a block, and what may stand there instead
EDITS: list[tuple[str, list[str]]] = [
    (r"lr=0\.1", ["lr=0.03", "lr=0.2", "lr=0.01", "lr=0.5", "lr=0.002"]),
    (r"momentum=0\.9", ["momentum=0.95", "momentum=0.8", "momentum=0.5"]),
    (r"weight_decay=1e-4", ["weight_decay=5e-4", "weight_decay=1e-2", "weight_decay=0"]),
    (
        r"torch\.optim\.SGD\(model\.parameters\(\).*\)",
        [
            "torch.optim.AdamW(model.parameters(), lr=0.003)",
            "torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)",
            "torch.optim.RMSprop(model.parameters(), lr=0.001)",
        ],
    ),
    (r"torch\.sigmoid", ["torch.tanh", "F.hardsigmoid", "2 * torch.sigmoid"]),
    (r"F\.silu", ["F.relu", "F.gelu", "F.mish", "torch.tanh"]),
    (r"F\.hardswish", ["F.relu", "F.silu", "F.leaky_relu", "torch.sigmoid"]),
    (r"kernel=3", ["kernel=5", "kernel=1", "kernel=7"]),
    (r"nn\.Dropout\(0\.5\)", ["nn.Dropout(0.2)", "nn.Dropout(0.0)", "nn.Dropout(0.8)"]),
    (r"self\.gate\(self\.depthwise1\(y\)\) \+ x", ["self.depthwise1(y) + x", "self.gate(self.depthwise1(y) + x)"]),
    (r"return self\.depthwise2\(y\) \+ x", ["return self.depthwise2(y)", "return y + x"]),
    (r"x \* gate", ["x + gate", "x * (1 + gate)"]),
    (r"F\.max_pool2d\(x, 2, ceil_mode=True\)", ["F.avg_pool2d(x, 2, ceil_mode=True)"]),
    (r"x\.mean\(dim=\(2, 3\)\)", ["x.amax(dim=(2, 3))"]),
    (r"(?<!\d)12(?!\d)", ["8", "16", "24"]),
    (r"(?<!\d)48(?!\d)", ["24", "32", "64"]),
    (r"(?<!\d)96(?!\d)", ["48", "64", "128"]),
    (r"(?<!\d)192(?!\d)", ["96", "128", "160"]),
    (r"(?<!\d)384(?!\d)", ["128", "192", "256"]),
    (r" +DFSEB\((?:12|48|96|192|384)\),\n", [""]),
    (r" +DW\(384\),\n", [""]),
]


def reply(prompt: str) -> str:
    """The prompt's last block, with one or two of the edits that apply to it."""
    code = re.findall(r"```python\n(.*?)```", prompt, re.DOTALL)[-1]
    draws = random.Random(hashlib.sha256(prompt.encode()).digest())
    for _ in range(draws.choice((1, 1, 2))):
        fitting = [(found, others) for found, others in EDITS if re.search(found, code)]
        if fitting:
            found, others = draws.choice(fitting)
            # a width occurs where a layer ends and where the next begins: all of them change
            code = re.sub(found, draws.choice(others), code, count=1 if found.startswith(" +") else 0)
    return f"```python\n{code}```"
