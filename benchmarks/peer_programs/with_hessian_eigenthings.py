from hessian_eigenthings import HessianOperator, lanczos
from hessian_eigenthings.loss_fns import supervised_loss


def eigenpairs(net, loss, X, y, k):
    H = HessianOperator(net, [(X, y)], supervised_loss(loss))
    found = lanczos(H, k=k, max_iter=2 * k, reorthogonalize=True, seed=0)
    return found.eigenvalues, found.eigenvectors.T, found.iterations
