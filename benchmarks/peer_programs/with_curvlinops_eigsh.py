from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import LinearOperator, eigsh


def eigenpairs(net, loss, X, y, k):
    H = HessianLinearOperator(net, loss, list(net.parameters()), [(X, y)], num_data=len(y))
    inner, products = H.to_scipy(), []
    counted = LinearOperator(
        H.shape, matvec=lambda x: products.append(1) or inner @ x, dtype=inner.dtype
    )
    S, V = eigsh(counted, k=k, which="LM")
    return S, V, len(products)
