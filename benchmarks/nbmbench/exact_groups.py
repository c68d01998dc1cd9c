"""The best possible groups of a small instance, by HiGHS: the yardstick of grouping_quality.

Takes the same limits as planning.grouping and every set of servers that keeps them as a column of a
set partitioning problem. Exponential in servers: for 14 at the most.
"""

import numpy


def saved_pages(classes: list[tuple[int, float]], subsets: numpy.ndarray) -> tuple:
    """Return the pages saved and the pages recurring in each subset; sets are bit masks."""
    saved = numpy.zeros(len(subsets))
    recurring = numpy.zeros(len(subsets))
    for holders, pages in classes:
        members = numpy.bitwise_count(subsets & numpy.uint32(holders))
        saved += pages * numpy.maximum(members.astype(float) - 1, 0)
        recurring += pages * (members > 1)
    return saved, recurring


def best_saving(servers: int, classes: list[tuple[int, float]], dictionary_pages: float,
                most_members: int, fits, parts: list[int]) -> float:
    """Return the pages that the best partition into permitted groups saves.

    ``fits(list of server numbers)``: one destination takes them; ``parts``: masks of the servers
    among whom content may be shared.
    """
    subsets = numpy.arange(1, 1 << servers, dtype=numpy.uint32)
    sizes = numpy.bitwise_count(subsets)
    alike = numpy.zeros(len(subsets), dtype=bool)
    for part in parts:
        alike |= (subsets & ~numpy.uint32(part)) == 0
    subsets = subsets[(sizes <= most_members) & alike]
    saved, recurring = saved_pages(classes, subsets)
    keep = (recurring <= dictionary_pages) | (numpy.bitwise_count(subsets) == 1)
    keep &= numpy.array([fits([at for at in range(servers) if mask >> at & 1])
                         for mask in subsets.tolist()])
    return _partition(servers, subsets[keep], saved[keep])


def _partition(servers: int, subsets: numpy.ndarray, saved: numpy.ndarray) -> float:
    # Here, because the tests recompute results where the benchmarks' packages are not installed.
    import highspy
    solver = highspy.Highs()
    solver.silent()
    columns = len(subsets)
    members = (subsets[:, None] >> numpy.arange(servers, dtype=numpy.uint32)) & 1
    columns_of, rows = numpy.nonzero(members)
    starts = numpy.searchsorted(columns_of, numpy.arange(columns))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = columns, servers
    model.col_cost_ = -saved
    model.col_lower_, model.col_upper_ = numpy.zeros(columns), numpy.ones(columns)
    model.row_lower_ = model.row_upper_ = numpy.ones(servers)
    model.integrality_ = [highspy.HighsVarType.kInteger] * columns
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = numpy.append(starts, len(rows)).astype(numpy.int32)
    model.a_matrix_.index_ = rows.astype(numpy.int32)
    model.a_matrix_.value_ = numpy.ones(len(rows))
    solver.passModel(model)
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ended with {solver.getModelStatus()}")
    return -float(solver.getInfo().objective_function_value)
