"""The charts: seconds to the first token turn by turn, and tokens a second by the number of chats."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 300, 60, 44, 30
STYLE = """text{font:13px system-ui,sans-serif;fill:#52525b}.grid{stroke:#d4d4d8;stroke-width:1}
path{fill:none;stroke-width:2.5}.cached{stroke:#0d9488}.whole{stroke:#a1a1aa}.k{fill:#0d9488}
@media(prefers-color-scheme:dark){text{fill:#a1a1aa}.grid{stroke:#3f3f46}.cached{stroke:#2dd4bf}.k{fill:#2dd4bf}}"""


def svg(points: Sequence[tuple[int, float, float]]) -> str:
    """`points`: tokens of the prompt, seconds with the prefix cache, seconds without it; one for each turn."""
    most = max(whole for _, _, whole in points)
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if most / s <= 6)

    def x(turn: int) -> float:
        return LEFT + turn * (WIDTH - LEFT - 130) / (len(points) - 1)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - seconds * (HEIGHT - BOTTOM - TOP) / most

    def line(name: str, column: int, label: str) -> str:
        path = "M" + "L".join(f"{x(turn):.1f},{y(point[column]):.1f}" for turn, point in enumerate(points))
        end = f'<text x="{x(len(points) - 1) + 8:.1f}" y="{y(points[-1][column]) + 4:.1f}">{label}</text>'
        return f'<path class="{name}" d="{path}"/>{end}'

    grid = "".join(
        f'<path class="grid" d="M{LEFT},{y(n * step):.1f}H{WIDTH - 130}"/>'
        f'<text x="{LEFT - 8}" y="{y(n * step) + 4:.1f}" text-anchor="end">{n * step:g} s</text>'
        for n in range(int(most / step) + 1)
    )
    turns = "".join(
        f'<text x="{x(turn):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{tokens:,}</text>'
        for turn, (tokens, _, _) in enumerate(points)
        if turn % 2 == 0
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>Seconds to the first token as a talk grows</title><style>{STYLE}</style>{grid}{turns}"
        f'<text x="{LEFT}" y="{HEIGHT - 6}">tokens of the prompt, turn by turn</text>'
        f"{line('whole', 2, 'read anew')}{line('cached', 1, 'prefix cache')}</svg>\n"
    )


MANY_STYLE = """text{font:13px system-ui,sans-serif;fill:#52525b}.grid{stroke:#d4d4d8;stroke-width:1}
path{fill:none;stroke-width:2.5;stroke:#a1a1aa}.Parley{stroke:#0d9488}
@media(prefers-color-scheme:dark){text{fill:#a1a1aa}.grid{stroke:#3f3f46}.Parley{stroke:#2dd4bf}}"""
RIGHT, LINE = 150, 16  # room for the names of the lines, and the height of one


def by_chats(lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """`lines`: by name, the number of chats and the tokens a second of all together."""
    numbers = sorted({chats for points in lines.values() for chats, _ in points})
    most = max(rate for points in lines.values() for _, rate in points)
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 1000) if most / s <= 6)

    def x(chats: int) -> float:
        return LEFT + numbers.index(chats) * (WIDTH - LEFT - RIGHT) / max(1, len(numbers) - 1)

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - rate * (HEIGHT - BOTTOM - TOP) / most

    drawn, above = [], -float("inf")
    for name, points in sorted(lines.items(), key=lambda line: -line[1][-1][1]):
        above = max(above + LINE, y(points[-1][1]) + 4)  # no name on another one
        path = "M" + "L".join(f"{x(chats):.1f},{y(rate):.1f}" for chats, rate in points)
        drawn.append(f'<path class="{name.split()[0]}" d="{path}"/>')
        drawn.append(f'<text x="{WIDTH - RIGHT + 8}" y="{above:.1f}">{name}</text>')
    grid = "".join(
        f'<path class="grid" d="M{LEFT},{y(n * step):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 8}" y="{y(n * step) + 4:.1f}" text-anchor="end">{n * step:,}</text>'
        for n in range(int(most / step) + 1)
    )
    below = "".join(
        f'<text x="{x(chats):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{chats}</text>' for chats in numbers
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>Tokens a second of all chats together</title><style>{MANY_STYLE}</style>{grid}{below}"
        f'<text x="{LEFT}" y="{HEIGHT - 6}">chats at once; tokens a second of all together</text>'
        f"{''.join(drawn)}</svg>\n"
    )
