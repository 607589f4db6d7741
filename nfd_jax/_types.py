"""Shapes in the words of the field. P samples of a batch, K steps, L layers, n coordinates (width or
particles).

Arrays of features keep the coordinates last, (…, P, n): every average over coordinates is then a product of
rows, and the passes move contiguous memory.
"""

from jaxtyping import Array, Float, PRNGKeyArray

Rows = Float[Array, "P n"]  # one layer's features or backward features of a batch
LayerRows = Float[Array, "L P n"]  # the same for every layer
Scalar = Float[Array, ""]
Key = PRNGKeyArray
Index = int | Array  # a layer, step or row, traced or not
