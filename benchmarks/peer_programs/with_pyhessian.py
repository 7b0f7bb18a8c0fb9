import torch
from pyhessian import hessian


def eigenpairs(net, loss, X, y, k):
    S, V = hessian(net, loss, data=(X, y), cuda=False).eigenvalues(maxIter=2, tol=0, top_n=k)
    V = torch.stack([torch.cat([part.flatten() for part in v]) for v in V], dim=1)
    return torch.tensor(S), V, 2 * k
