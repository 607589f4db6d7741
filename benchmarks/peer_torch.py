"""The same loop in PyTorch, run eagerly as most do. Run as a program it prints JSON."""

import sys
import time

start = time.perf_counter()

import torch  # noqa: E402

imported = time.perf_counter()

import json  # noqa: E402

from ._tools import learning_rates, reference_data  # noqa: E402


class ResNet(torch.nn.Module):
    def __init__(self, width: int, depth: int, dim: int):
        super().__init__()
        self.U = torch.nn.Parameter(torch.randn(width, dim))
        self.V = torch.nn.Parameter(torch.randn(width, 1))
        self.W = torch.nn.ParameterList([torch.randn(width, width) for _ in range(depth)])

    def forward(self, x):
        width = self.U.shape[0]
        scale = (1 / len(self.W) / width) ** 0.5
        h = x @ self.U.T / x.shape[1] ** 0.5
        for W in self.W:
            h = h + scale * torch.tanh(h) @ W.T
        return h @ self.V / width


def main(sweep: dict, rates: int) -> dict:
    inputs, targets = (torch.from_numpy(x) for x in reference_data(sweep))
    finite = True
    for width in sweep["widths"]:
        for depth in sweep["depths"]:
            for seed in range(sweep["seeds"]):
                for rate in learning_rates(rates):
                    torch.manual_seed(seed)
                    net = ResNet(width, depth, sweep["input_dim"])
                    optimizer = torch.optim.SGD(net.parameters(), lr=rate * width)
                    for x, y in zip(inputs, targets, strict=True):
                        loss = 0.5 * ((net(x) - y) ** 2).sum(-1).mean()
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    finite = finite and bool(torch.isfinite(loss))
    return {"import": imported - start, "finite": finite}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]), int(sys.argv[2]))))
