//! Whether a level's outputs agree with the engine's.

use super::case::Case;
use super::plan::Computed;
use super::tensor::Tensor;

/// A line for each output that disagrees.
pub(crate) fn compare(case: &Case, computed: &[Computed<'_>]) -> Vec<String> {
    let wanted = computed.iter().filter_map(|got| Some((got, case.outputs.get(got.output.name)?)));
    wanted
        .filter_map(|(got, want)| {
            let difference = difference(case, got, want)?;
            Some(format!("{} {difference}", got.output.name))
        })
        .collect()
}

fn difference(case: &Case, got: &Computed<'_>, want: &Tensor) -> Option<String> {
    let tensor = &got.tensor;
    if tensor.shape != want.shape {
        return Some(format!("has shape {:?}, wanted {:?}", tensor.shape, want.shape));
    }
    // In the precision that the engine answers in.
    let mut rounded = want.zeros_like(&want.shape);
    let (mut wrong, mut greatest, mut place) = (0, 0.0, 0);
    for index in (0..want.len()).filter(|&index| is_specified(got, index)) {
        rounded.set(index, tensor.get(index));
        let (got, want) = (rounded.get(index), want.get(index));
        let error = if got == want || (got.is_nan() && want.is_nan()) { 0.0 } else { (got - want).abs() };
        // An error of NaN is none that could be small enough.
        let error = if error.is_nan() { f32::INFINITY } else { error };
        wrong +=
            usize::from(error != 0.0 && (error.is_infinite() || error > case.atol + case.rtol * want.abs()));
        if error > greatest {
            (greatest, place) = (error, index);
        }
    }
    (wrong > 0).then(|| {
        let (got, want) = (rounded.get(place), want.get(place));
        format!(
            "greatest error {greatest:e} (element {place}: {got:e}, wanted {want:e}), {wrong} elements wrong"
        )
    })
}

/// Whether the operator says what an element is.
fn is_specified(computed: &Computed<'_>, index: usize) -> bool {
    let Some((axis, limits)) = &computed.output.specified else { return true };
    let shape = &computed.tensor.shape;
    let stride: usize = shape[axis + 1..].iter().product();
    let sequence: usize = shape[1..].iter().product();
    index / stride % shape[*axis] < limits[index / sequence]
}
