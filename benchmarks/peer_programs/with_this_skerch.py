from curvlinops import HessianLinearOperator

from skerch import block_krylov


def eigenpairs(net, loss, X, y, k):
    H = HessianLinearOperator(net, loss, list(net.parameters()), [(X, y)], num_data=len(y))
    found = block_krylov(H, k, num_rounds=10)
    return found.S, found.vectors(), found.num_products
