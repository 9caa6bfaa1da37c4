/* The floor: implicit score matching of a 1-h-1 sigmoid network by Adam, full batch, in float32, as fast as a plain loop goes.

   Per row, with s_k = sigmoid(w_k x + b_k), s' = s - s^2 and s'' = s' (1 - 2 s):

       psi = sum_k a_k s_k + c,   J = sum_k a_k w_k s'_k,   loss = 1/2 psi^2 + J + lambda J^2

   and with g = psi / n and q = (1 + 2 lambda J) / n the gradient is

       dc = sum g,                                da_k = sum g s_k + w_k sum q s'_k,
       db_k = a_k (sum g s'_k + w_k sum q s''_k), dw_k = a_k (sum g s'_k x + sum q s'_k + w_k sum q s''_k x).

   theta holds w, b, a and c, h + h + h + 1 numbers, and so do the two moments. Rows go in blocks that stay in the first cache. */

#include <math.h>
#include <string.h>

enum { BLOCK = 512, WIDEST = 64 };

static double gradient(const float *theta, float *slope, const float *x, long n, int h, float lambda)
{
    const float *w = theta, *b = theta + h, *a = theta + 2 * h, c = theta[3 * h];
    float s[WIDEST][BLOCK], g[BLOCK], q[BLOCK];
    double total = 0.0, sums[WIDEST][3], dc = 0.0;
    memset(sums, 0, sizeof sums);
    for (long start = 0; start < n; start += BLOCK) {
        const float *at = x + start;
        const int rows = n - start < BLOCK ? (int)(n - start) : BLOCK;
        for (int i = 0; i < rows; i++) {
            g[i] = c;
            q[i] = 0.0f;
        }
        for (int k = 0; k < h; k++) {
            const float wk = w[k], bk = b[k], ak = a[k], awk = a[k] * w[k];
            for (int i = 0; i < rows; i++) {
                const float sk = 1.0f / (1.0f + expf(-(wk * at[i] + bk)));
                s[k][i] = sk;
                g[i] += ak * sk;
                q[i] += awk * (sk - sk * sk);
            }
        }
        float loss = 0.0f, gs = 0.0f;
        for (int i = 0; i < rows; i++) {
            const float psi = g[i], j = q[i];
            loss += 0.5f * psi * psi + j + lambda * j * j;
            g[i] = psi / n;
            q[i] = (1.0f + 2.0f * lambda * j) / n;
            gs += g[i];
        }
        total += loss;
        dc += gs;
        for (int k = 0; k < h; k++) {
            float t0 = 0.0f, t1 = 0.0f, t2 = 0.0f, t3 = 0.0f, t4 = 0.0f, t5 = 0.0f;
            for (int i = 0; i < rows; i++) {
                const float sk = s[k][i], d1 = sk - sk * sk, gd = g[i] * d1, qd = q[i] * d1, qdd = qd * (1.0f - 2.0f * sk);
                t0 += g[i] * sk;
                t1 += gd;
                t2 += gd * at[i];
                t3 += qd;
                t4 += qdd;
                t5 += qdd * at[i];
            }
            sums[k][0] += t0 + w[k] * t3;
            sums[k][1] += t1 + w[k] * t4;
            sums[k][2] += t2 + t3 + w[k] * t5;
        }
    }
    for (int k = 0; k < h; k++) {
        slope[k] = a[k] * (float)sums[k][2];
        slope[h + k] = a[k] * (float)sums[k][1];
        slope[2 * h + k] = (float)sums[k][0];
    }
    slope[3 * h] = (float)dc;
    return total / n;
}

/* Takes the steps; losses[t] is the loss before step t. Returns 0, or 1 where the network is too wide for the buffers. */
int train(float *theta, const float *x, long n, int h, float lambda, double rate, double b1, double b2, double eps, long steps,
          double *losses)
{
    float slope[3 * WIDEST + 1], m[3 * WIDEST + 1] = {0}, v[3 * WIDEST + 1] = {0};
    double p1 = 1.0, p2 = 1.0;
    if (h > WIDEST)
        return 1;
    for (long t = 0; t < steps; t++) {
        losses[t] = gradient(theta, slope, x, n, h, lambda);
        p1 *= b1;
        p2 *= b2;
        const float size = (float)(rate / (1.0 - p1)), correct = (float)(1.0 / (1.0 - p2));
        for (int k = 0; k < 3 * h + 1; k++) {
            m[k] = (float)b1 * m[k] + (float)(1.0 - b1) * slope[k];
            v[k] = (float)b2 * v[k] + (float)(1.0 - b2) * slope[k] * slope[k];
            theta[k] -= size * m[k] / (sqrtf(v[k] * correct) + (float)eps);
        }
    }
    return 0;
}
