"""Mamba's selective scan, forward and backward, fast enough on a CPU to train with."""

import torch


class SelectiveScan(torch.autograd.Function):
    """h[t] = exp(dt[t] A) h[t-1] + (dt u)[t] B[t];  y[t] = sum_n C[t] h[t].   dt, u, y [T,B,D]; A [D,N]; B, C [T,B,N].

    Written by hand because autograd would keep half a dozen tensors of the size of h and launch as many operations a
    step. h is laid out [N,T,B,D]: a step is one fused multiply-add for all n, and everything else runs one n at a time,
    on pieces that fit the cache.
    `keep` [T,B] is 0 where a new conversation starts in a packed row: the state does not cross that border.
    """

    @staticmethod
    def forward(ctx, dt, u, A, B, C, keep):
        du, keep = dt * u, keep.unsqueeze(-1)
        decay, h = dt.new_empty(A.shape[1], *dt.shape), dt.new_empty(A.shape[1], *dt.shape)
        for n in range(len(h)):
            torch.mul(dt, A[:, n], out=decay[n]).exp_().mul_(keep)
            torch.mul(du, B[..., n : n + 1], out=h[n])
        h_steps, decay_steps = h.unbind(1), decay.unbind(1)
        for t in range(1, len(dt)):
            h_steps[t].addcmul_(decay_steps[t], h_steps[t - 1])
        y = torch.zeros_like(dt)
        for n in range(len(h)):
            y.addcmul_(h[n], C[..., n : n + 1])
        ctx.save_for_backward(dt, u, A, B, C, decay, h)
        return y

    @staticmethod
    def backward(ctx, gy):
        dt, u, A, B, C, decay, h = ctx.saved_tensors
        gy, du = gy.contiguous(), dt * u
        gh, gA, gB, gC = torch.empty_like(h), torch.empty_like(A), torch.empty_like(B), torch.empty_like(C)
        for n in range(len(h)):
            torch.mul(gy, C[..., n : n + 1], out=gh[n])
            torch.sum(h[n] * gy, -1, out=gC[..., n])
        gh_steps, decay_steps = gh.unbind(1), decay.unbind(1)
        for t in range(len(dt) - 2, -1, -1):
            gh_steps[t].addcmul_(decay_steps[t + 1], gh_steps[t + 1])
        gdt, gdu = torch.zeros_like(dt), torch.zeros_like(dt)
        for n in range(len(h)):
            gdu.addcmul_(gh[n], B[..., n : n + 1])
            torch.sum(gh[n] * du, -1, out=gB[..., n])
            gexponent = gh[n, 1:].mul_(h[n, :-1]).mul_(decay[n, 1:])  # step 0 has no state before it
            gdt[1:].addcmul_(gexponent, A[:, n])
            torch.sum(gexponent.mul_(dt[1:]), (0, 1), out=gA[:, n])
        return gdt.addcmul_(gdu, u), gdu.mul_(dt), gA, gB, gC, None
