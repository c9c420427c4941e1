//! Which CPUs are used.

use anyhow::{Context, bail};
use core_affinity::CoreId;

/// The CPUs of `--cores`: all that the process may use, the first N of them, or a list.
///
/// # Errors
/// There are not so many, or a CPU is not among them.
pub fn choose(text: Option<&str>) -> anyhow::Result<Vec<CoreId>> {
    let allowed =
        core_affinity::get_core_ids().filter(|cores| !cores.is_empty()).context("the kernel does not say which CPUs may be used")?;
    let ids: Vec<usize> = allowed.iter().map(|core| core.id).collect();
    pick(text, &ids).map(|picked| picked.into_iter().map(|id| CoreId { id }).collect())
}

fn pick(text: Option<&str>, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    let Some(text) = text.map(str::trim) else { return Ok(allowed.to_vec()) };
    let wrong = || format!("cores = {text:?}: it is a number of cores (4) or a list of CPUs (0,2,4 or 0-3)");
    if !text.contains([',', '-']) {
        let count: usize = text.parse().with_context(wrong)?;
        if count == 0 || count > allowed.len() {
            let most = allowed.len();
            bail!(
                "cores = {count}: this process may use {most} CPUs. Give a number from 1 to {most}, a list of CPUs (for example {}), or \
                 nothing, which is all of them",
                list_of(&allowed[..most.min(2)])
            );
        }
        return Ok(allowed[..count].to_vec());
    }
    let mut picked = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().with_context(wrong)?, last.trim().parse().with_context(wrong)?);
        if last.saturating_sub(first) > 4096 {
            bail!(wrong());
        }
        for id in first..=last {
            if !allowed.contains(&id) {
                bail!("cores = {text:?}: CPU {id} is not among those that this process may use: {}", list_of(allowed));
            }
            if picked.contains(&id) {
                bail!("cores = {text:?}: CPU {id} is named twice");
            }
            picked.push(id);
        }
    }
    if picked.is_empty() {
        bail!(wrong());
    }
    Ok(picked)
}

/// As `--cores` takes it: a number alone would be a count.
fn list_of(cpus: &[usize]) -> String {
    match cpus {
        [cpu] => format!("{cpu},"),
        _ => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn cores_are_a_count_or_a_list() {
        let allowed = [0, 1, 2, 5];
        let cases: [(Option<&str>, &[usize]); 5] =
            [(None, &allowed), (Some("2"), &[0, 1]), (Some("5,0"), &[5, 0]), (Some("0-2"), &[0, 1, 2]), (Some("1,"), &[1])];
        for (text, expected) in cases {
            assert_eq!(pick(text, &allowed).unwrap(), expected, "{text:?}");
        }
        for text in ["0", "5", "3,4", "x", "", "0,0", "2-0", "-", "1--2"] {
            assert!(pick(Some(text), &allowed).is_err(), "{text:?}");
        }
        let advice = pick(Some("0"), &[3]).unwrap_err().to_string();
        assert!(advice.contains("(for example 3,)") && pick(Some("3,"), &[3]).is_ok(), "{advice}");
    }
}
