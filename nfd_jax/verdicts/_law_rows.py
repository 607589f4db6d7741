"""C1 to C4 in law: biases of what the limit makes deterministic, and distances of marginals."""

from collections.abc import Iterator

from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import FLAGS, PAIRS, pair
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, constant_of, guarded

LAWS = (
    ("output_bias", "f", "", "bias of outputs"),
    ("feature_kernel_bias", "h", "", "bias of feature kernels"),
    ("gradient_kernel_bias", "b", "", "bias of gradient kernels"),
    ("marginal_w2", "h", "h", "distance beyond chance of the marginals of h"),
    ("marginal_w2", "b", "b", "distance beyond chance of the marginals of b"),
)


def law_rows(context: Context, claim: str) -> Iterator[Found]:
    """What the limit makes deterministic: means of outputs and kernels, marginals of single coordinates."""
    pairs = PAIRS if claim == "C4" else (FLAGS,)
    for network, limit in pairs:
        for variable, quantity, label, words in LAWS:
            if claim == "C1" and quantity != "b":
                continue
            path = f"law/{variable}"
            select = pair(network, limit) | ({"quantity": label} if label else {})
            text = f"{words} between {network} network and {limit} limit"
            name = f"{variable.removeprefix('marginal_')} {label}".strip().replace("_", " ")
            base = Row(
                f"{claim} law {network} → {limit} {name}",
                claim,
                "law",
                quantity,
                "both",
                "constant",
                text=text,
                decides=(network, limit) == FLAGS,
            )

            def constant(base: Row, path: str = path, select: dict = select, text: str = text) -> Found:
                training = claim != "C1"
                less = f"{path}_null" if path.endswith("w2") else ""
                asked = {"key": (path, tuple(select.items()), training), "what": f"{text} is"}
                asked |= {"less": less, "survives": claim == "C2"}
                return constant_of(base, context, path, select, training=training, **asked)

            yield guarded(base, constant)
