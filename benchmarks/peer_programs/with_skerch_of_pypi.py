import torch
from curvlinops import HessianLinearOperator
from skerch.algorithms import seigh


def eigenpairs(net, loss, X, y, k):
    H = HessianLinearOperator(net, loss, list(net.parameters()), [(X, y)], num_data=len(y))
    S, V = seigh(H, "cpu", torch.float32, k, meas_blocksize=64)
    return S, V, 2 * k
