//! Tab-separated cells become columns, by the rules of Go's text/tabwriter as
//! Docker sets it up: a column is at least 10 wide, 3 blanks follow the widest
//! cell, and the last cell of a line belongs to no column.
//!
//! A column lasts as long as consecutive lines have a cell in it, so a line
//! with fewer tabs ends it (elastic tab stops).

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns whole lines; a missing last newline stays missing.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text
        .split_inclusive('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, &mut Vec::new(), &mut out);
    out
}

/// Prints `lines`, which all have a cell in each column of `widths`.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let in_column = |line: &Vec<&str>| line.len() > column + 1;
    let mut rest = lines;
    while !rest.is_empty() {
        let plain = rest.iter().position(in_column).unwrap_or(rest.len());
        for line in &rest[..plain] {
            print(line, widths, out);
        }
        rest = &rest[plain..];
        let run = rest.iter().take_while(|line| in_column(line)).count();
        if run > 0 {
            let widest = rest[..run].iter().map(|line| width(line[column])).max();
            widths.push((widest.unwrap_or(0) + PADDING).max(MIN_WIDTH));
            block(&rest[..run], widths, out);
            widths.pop();
            rest = &rest[run..];
        }
    }
}

fn print(line: &[&str], widths: &[usize], out: &mut String) {
    for (i, cell) in line.iter().enumerate() {
        out.push_str(cell);
        if let Some(wanted) = widths.get(i) {
            out.extend(std::iter::repeat_n(' ', wanted.saturating_sub(width(cell))));
        }
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_like_docker() {
        assert_eq!(
            align("NAME\tDRIVER\nmac1\tmacvlan\n"),
            "NAME      DRIVER\nmac1      macvlan\n"
        );
        assert_eq!(
            align("0123456789\tx\na\ty\n"),
            "0123456789   x\na            y\n"
        );
        assert_eq!(align("é…\t1\n"), "é…        1\n");
    }

    #[test]
    fn an_empty_cell_and_a_shorter_line() {
        assert_eq!(align("a\t\tb\n"), "a                   b\n");
        assert_eq!(
            align("a\tb\nno cells\nc\td\n"),
            "a         b\nno cells\nc         d\n"
        );
        assert_eq!(align(""), "");
        assert_eq!(align("x"), "x");
    }

    #[test]
    fn columns_end_where_lines_do() {
        // The second column has its own width in each block.
        assert_eq!(
            align("a\tlong long cell\tx\nb\ty\nc\ts\tz\n"),
            "a         long long cell   x\nb         y\nc         s         z\n"
        );
    }
}
