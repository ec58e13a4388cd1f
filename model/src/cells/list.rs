//! What the list of cells becomes: the names in configurations, and the way from a [`Cell`] to its equations. Which cells there are
//! stands in `cells/mod.rs` alone; what one is like, in its own file.

use std::{fmt, str::FromStr};

use super::{Cell, Equations, Wiring, with_equations};
use crate::ModelError;

/// From lines `Variant = "name" in file` the enum [`Cell`], and `with_equations!`, which evaluates an expression with a type bound to
/// a cell's equations: `with_equations!(cell, E => E::BLOCKS)`. The `$` in front is that of the macro it defines.
macro_rules! cells {
    ($d:tt $($(#[$doc:meta])* $cell:ident = $name:literal in $file:ident,)+) => {
        $(pub(crate) use $file::$cell;)+

        /// Which recurrent cell the layers are made of. Each has its equations and their source in a file under `cells/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cell {
            $($(#[$doc])* $cell,)+
        }

        impl Cell {
            /// Every cell, in the order of the documentation.
            pub const ALL: [Cell; [$($name),+].len()] = [$(Cell::$cell),+];

            /// The name in configurations.
            pub fn name(self) -> &'static str {
                match self {
                    $(Cell::$cell => $name,)+
                }
            }
        }

        macro_rules! with_equations {
            ($d cell:expr, $d e:ident => $d body:expr) => {
                match $d cell {
                    $($crate::Cell::$cell => {
                        type $d e = $crate::cells::$cell;
                        $d body
                    })+
                }
            };
        }
        pub(crate) use with_equations;
    };
}
pub(super) use cells;

impl Cell {
    /// The names of the cells of which this holds, as a sentence has them: `a, b or c`.
    pub fn names(which: impl Fn(Cell) -> bool) -> String {
        let names: Vec<&str> = Cell::ALL.into_iter().filter(|&cell| which(cell)).map(Cell::name).collect();
        match names.split_last() {
            Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
            _ => names.concat(),
        }
    }

    /// Whether a learned forget gate can be opened by its bias at the start.
    pub fn has_forget_gate(self) -> bool {
        self.forget_block().is_some()
    }

    /// The block of rows of `bias_ih` that opens a learned forget gate.
    pub(crate) fn forget_block(self) -> Option<usize> {
        with_equations!(self, E => <E as Equations>::FORGET_BLOCK)
    }

    /// Blocks of H rows in `weight_ih` and `weight_hh`.
    pub(crate) fn row_blocks(self) -> usize {
        with_equations!(self, E => <E as Equations>::BLOCKS)
    }

    /// Whether the carry holds `c` beside `h`.
    pub(crate) fn has_cell_state(self) -> bool {
        with_equations!(self, E => <E as Equations>::CELL_STATE)
    }

    /// Whether the gates see the cell state through weights of their own.
    pub(crate) fn has_peepholes(self) -> bool {
        with_equations!(self, E => <E as Equations>::PEEPHOLES)
    }

    pub(crate) fn wiring(self) -> &'static Wiring {
        with_equations!(self, E => const { &<E as Equations>::WIRING })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Cell {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Cell::ALL.into_iter().find(|cell| cell.name() == name);
        found.ok_or_else(|| ModelError::UnknownCell(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cells_read_back() {
        for cell in Cell::ALL {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
        assert_eq!("LSTM".parse::<Cell>(), Err(ModelError::UnknownCell("LSTM".into())));
    }

    /// The kernels hold four slots, and every slot is somebody's.
    #[test]
    fn what_a_cell_states_fits_together() {
        for cell in Cell::ALL {
            let Wiring { slots, input, hidden } = *cell.wiring();
            assert!((1..=4).contains(&slots), "{cell}: {slots} slots");
            for wire in input.iter().chain(hidden) {
                assert!(wire.0 < cell.row_blocks() && wire.1 < slots, "{cell}: {wire:?}");
            }
            let is_fed = |slot: usize| input.iter().chain(hidden).any(|wire| wire.1 == slot);
            assert!((0..slots).all(is_fed), "{cell}: a slot that no weights feed");
            assert!(cell.forget_block().is_none_or(|block| block < cell.row_blocks()), "{cell}");
        }
    }

    #[test]
    fn names_are_listed_as_a_sentence_has_them() {
        assert_eq!(Cell::names(Cell::has_forget_gate), "lstm or lstm_peephole");
        assert_eq!(Cell::names(|cell| cell == Cell::Gru), "gru");
        assert!(Cell::names(|cell| !cell.has_cell_state()).starts_with("gru, rnn_tanh, rnn_relu"));
    }
}
