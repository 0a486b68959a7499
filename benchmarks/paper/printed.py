"""The paper's printed figures, Tables 1 to 6, as data.

El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. *Mixup Regularization: A Probabilistic Perspective*,
UAI 2025, PMLR 286:1184-1219. Each figure is a mean and what follows its plus-minus sign.
"""

from typing import NamedTuple

__all__ = [
    "STOCK_NLL",
    "TOY_NLL_IN",
    "TOY_NLL_OUT",
    "UCI_NLL",
    "UCI_RMSE",
    "Figure",
]


class Figure(NamedTuple):
    """One cell of a table."""

    mean: float
    sd: float | None


METHODS = (
    "erm",
    "mixup",
    "local-mixup",
    "manifold-mixup",
    "local-manifold-mixup",
    "probmix",
    "local-probmix",
    "m-probmix",
    "local-m-probmix",
    "m-probmix-separate",
    "local-m-probmix-separate",
)


def _rows(text, methods):
    """Parse ``name: mean±sd mean±sd ...`` to a dict of name to dict of method."""
    rows = {}
    for token in text.split():
        if token.endswith(":"):
            cells = rows[token.removesuffix(":")] = []
        else:
            mean, _, sd = token.partition("±")
            cells.append(Figure(float(mean), float(sd) if sd else None))
    return {name: dict(zip(methods, cells, strict=True)) for name, cells in rows.items()}


UCI_NLL = _rows(
    """
    bostonHousing: 3.37±.47 3.32±1.17 3.46±.76 3.72±2.32 3.31±.68 3.21±1.07 3.26±.66 3.12±.56
        3.09±.70 2.57±.41 2.52±.21
    energy: 1.24±1.37 1.14±1.00 1.08±1.18 1.25±1.52 1.00±.88 .77±.32 .82±.52 .74±.42 .93±.65
        1.38±.18 1.13±.17
    wine-quality-red: 1.96±2.08 1.84±1.19 1.70±1.43 1.87±2.18 1.99±2.01 1.50±.57 1.37±.32 1.26±.24
        1.15±.18 1.16±.63 1.12±.22
    concrete: 4.50±2.72 3.71±.64 3.75±.77 3.81±.95 3.69±1.14 3.50±.58 3.67±.71 3.35±.48 3.37±.47
        3.13±.22 3.07±.16
    power-plant: 2.86±.18 2.82±.11 2.84±.09 2.84±.12 2.85±.09 2.79±.06 2.84±.16 2.82±.06 2.84±.07
        2.85±.05 2.86±.05
    yacht: .44±.94 1.70±.63 .78±.38 .49±.66 .32±.29 1.39±.42 1.45±.88 .27±.36 .26±.25 .92±.24
        1.07±.28
    kin8nm: -1.14±.10 -1.01±.13 -1.14±.11 -1.16±.09 -1.07±.13 -1.12±.10 -1.15±.08 -1.20±.07
        -1.18±.05 -1.17±.05 -1.14±.05
    naval-propulsion-plant: -5.89±.88 -6.15±.13 -6.46±.45 -6.28±.49 -6.47±.44 -6.36±.63 -6.12±.89
        -6.13±.30 -5.44±.63 -5.03±.04 -4.92±.06
    """,
    METHODS,
)
"""Table 1: test NLL in the units of y, mean and standard deviation over 20 splits."""

UCI_RMSE = _rows(
    """
    bostonHousing: 5.77±3.23 4.68±3.00 5.25±3.33 4.65±2.67 4.72±2.86 4.27±2.75 5.00±3.18 4.54±2.84
        3.93±2.52 3.27±.97 3.23±1.03
    energy: .44±.09 .51±.10 .45±.07 .46±.08 .45±.08 .47±.09 .48±.08 .48±.07 .49±.08 1.04±.46
        .76±.16
    wine-quality-red: .76±.10 .72±.10 .72±.10 .77±.10 .71±.09 .75±.10 .74±.10 .77±.10 .72±.10
        .66±.08 .66±.08
    concrete: 5.88±2.67 5.10±.58 5.19±.59 5.76±2.73 5.73±2.45 5.47±2.76 5.08±.75 5.90±2.50
        5.88±2.41 5.48±.67 5.43±.54
    power-plant: 3.91±.18 3.93±.17 3.96±.15 3.93±.17 3.97±.15 3.85±.14 3.96±.19 4.09±.22 4.13±.21
        4.21±.20 4.24±.20
    yacht: 1.26±2.71 1.96±.59 1.37±.37 .70±.26 .73±.30 .92±.35 1.21±.58 .68±.29 .70±.31 1.41±.65
        1.73±.74
    kin8nm: 7.41±.34 7.73±.34 7.53±.37 7.28±.26 7.62±.42 7.52±.36 7.54±.42 7.66±.52 7.73±.35
        8.01±.43 8.12±.51
    naval-propulsion-plant: .21±.33 .06±.01 .09±.21 .05±.03 .04±.03 .04±.07 .09±.13 .06±.02
        .17±.16 .12±.01 .13±.02
    """,
    METHODS,
)
"""Table 6: RMSE in the units of y; the two tables that it prints times 100 are divided by it."""
for _name in ("kin8nm", "naval-propulsion-plant"):
    UCI_RMSE[_name] = {
        method: Figure(figure.mean / 100, figure.sd / 100)
        for method, figure in UCI_RMSE[_name].items()
    }

STOCK_NLL = {
    "lstm": _rows(
        """
        GME: 158.67±14.80 106.54±5.36 505.33±15.76 170.99±9.25 541.32±50.82 257.74±17.71
            411.59±48.22 67.32±3.99 143.75±8.33
        GOOG: 36.52±6.26 148.71±21.49 110.14±3.66 102.01±35.98 80.34±15.73 141.25±40.68 52.11±4.27
            5.83±1.65 11.08±2.47
        NVDA: 3.17±.73 5.43±1.10 49.79±8.65 9.06±1.93 61.44±15.22 5.19±1.14 61.32±13.26 1.67±.14
            1.11±.08
        RCL: 14.22±.96 .74±.08 128.31±22.15 61.59±10.45 55.22±6.59 18.32±1.33 56.42±6.33 2.22±.30
            6.22±.74
        """,
        METHODS[:9],
    ),
    "transformer": _rows(
        """
        GME: 684.79±83.17 507.55±28.04 650.72±59.74 788.60±70.42 551.78±27.83 389.45±17.00
            466.82±25.67 374.15±41.05 398.97±16.66
        GOOG: 114.32±23.27 147.85±10.57 57.37±16.75 164.20±26.53 64.75±12.21 203.44±31.69
            35.21±7.98 111.34±21.59 86.94±15.56
        NVDA: 2.29±.32 1.32±.16 3.23±.44 2.38±.13 1.90±.11 7.77±.67 1.78±.03 .91±.10 1.81±.08
        RCL: 10.04±2.17 -.05±.02 10.26±1.17 8.46±1.39 4.85±.78 7.46±.55 4.82±.65 3.46±.34 4.36±.85
        """,
        METHODS[:9],
    ),
}
"""Table 2: test NLL of normalised y, by network and stock."""

_DENSITIES = METHODS[5:9]
TOY_NLL_IN = {
    "linear": _rows(
        """
        1e-32: -.76 -.66 -.38 -.30
        .01: -.77 -.66 -.33 -.30
        .05: -.76 -.62 -.01 -.30
        .1: -.74 -.66 .11 -.31
        .5: -.76 -.65 .43 -.29
        1: -.74 -.66 .36 -.25
        """,
        _DENSITIES,
    ),
    "log-linear": _rows(
        """
        1e-32: -.78 -.62 -.38 -.28
        .01: -.72 -.67 -.39 -.33
        .05: -.71 -.65 -.36 -.29
        .1: -.66 -.67 -.35 -.32
        .5: -.65 -.64 -.28 -.30
        1: -.51 -.51 -.25 -.33
        """,
        _DENSITIES,
    ),
}
"""Table 3: NLL of standardised y in distribution, by pooling and alpha; beta 1e-32.

Its deviations lie between .01 and .04.
"""

TOY_NLL_OUT = {
    "linear": _rows(
        """
        1e-32: 94.9±11.8 157.1±40.8 21.3±3.3 16.0±3.2
        .01: 103.5±15.0 171.1±41.0 28.4±8.8 22.7±4.3
        .05: 90.2±12.7 180.7±30.0 6.6±.9 17.4±3.0
        .1: 85.3±13.5 206.9±30.6 12.3±3.6 24.4±6.4
        .5: 83.4±10.2 149.2±35.5 6.1±1.4 22.0±3.9
        1: 91.8±7.1 104.5±22.9 7.8±.7 14.8±4.8
        """,
        _DENSITIES,
    ),
    "log-linear": _rows(
        """
        1e-32: 87.1±10.5 143.2±31.7 87.1±10.5 143.2±31.7 92.6±13.0 229.4±133.6 29.5±6.5 78.6±62.4
        .01: 98.6±24.2 110.7±11.0 162.5±47.9 152.3±45.4 78.1±8.1 132.7±38.7 27.5±6.2 18.6±6.3
        .05: 176.3±45.5 167.1±52.8 136.2±33.5 147.1±25.8 117.8±27.0 157.2±18.1 31.0±5.4 16.9±2.2
        .1: 258.9±51.1 202.1±41.7 148.5±29.9 177.8±26.7 173.1±27.3 258.4±52.7 25.9±6.0 32.8±8.1
        .25: 270.3±62.2 207.5±44.5 140.3±33.5 204.3±58.1 302.0±30.8 120.2±18.4 22.9±6.7 19.1±3.9
        .5: 306.0±38.9 219.1±57.7 136.4±23.8 202.4±34.3 313.6±59.6 176.2±55.0 47.7±12.2 16.9±3.0
        1: 310.3±52.3 256.7±85.0 134.1±34.0 186.3±42.7 370.1±54.3 117.4±18.6 37.1±13.4 23.8±5.6
        """,
        METHODS[1:9],
    ),
}
"""Tables 4 (left half) and 5: the same out of distribution, x in (4, 6)."""

# By alpha as a number.
for _table in (TOY_NLL_IN, TOY_NLL_OUT):
    for _pooling, _by_alpha in _table.items():
        _table[_pooling] = {float(alpha): row for alpha, row in _by_alpha.items()}
