//! Markdown tables, printed as they grow.

/// Column widths.
const FIRST: usize = 46;
const OTHERS: usize = 9;

/// Prints a row: a name, then figures.
pub(crate) fn row(name: &str, figures: &[String]) {
    print!("| {name:<FIRST$} |");
    for figure in figures {
        print!(" {figure:>OTHERS$} |");
    }
    println!();
}

/// Prints the names of the columns.
pub(crate) fn head(name: &str, figures: &[&str]) {
    row(name, &figures.iter().map(|&figure| figure.to_owned()).collect::<Vec<_>>());
    let dashes = |n: usize| "-".repeat(n);
    row(&dashes(FIRST), &figures.iter().map(|_| dashes(OTHERS - 1) + ":").collect::<Vec<_>>());
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A goal that a share shall reach.
pub(crate) fn at_least(goal: f64) -> String {
    format!("≥ {:.0} %", 100.0 * goal)
}

/// A goal that a cost shall stay below.
pub(crate) fn at_most(goal: f64) -> String {
    format!("≤ {:.0} %", 100.0 * goal)
}
