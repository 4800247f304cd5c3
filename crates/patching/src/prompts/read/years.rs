//! Answers of greater-than tasks: all years that are later, against all that are not.
//!
//! EAP-IG writes a pair of "The war lasted from the year 1352 to the year 13" with the number 52 in a
//! column `correct_idx` (in its notebook `label`, in MIB's data `year`, there with all four digits). Its
//! metric compares the two-digit tokens above 52 with the others, `prob[53..]` with `prob[..53]`
//! (hannamw/eap-ig-faithfulness, `metrics.py`). Elsewhere `correct_idx` is a token id. So a number below
//! 100 is a year only if the prompt says so: its last number of four digits ends in it, and the prompt in
//! that number's first two.

use super::super::{Answer, Written};
use super::cells::Cell;

/// The two last digits of the year, if the number is the one that the prompt is about.
pub fn year(clean: &Written, number: u32) -> Option<u32> {
    let Written::Text(clean) = clean else {
        return None;
    };
    let mut numbers: Vec<&str> = clean.split(|c: char| !c.is_ascii_digit()).collect();
    let begun = numbers.pop().filter(|begun| begun.len() == 2)?;
    let last = numbers.into_iter().rfind(|number| number.len() == 4)?;
    let year: u32 = last.strip_prefix(begun)?.parse().ok()?;
    let is_meant = number == year || last.parse() == Ok(number);
    is_meant.then_some(year)
}

/// The number in a field, if it is one.
pub fn number(cell: &Cell<'_>) -> Option<u32> {
    match cell {
        Cell::Id(number) => Some(*number),
        Cell::Text(text) => {
            let digits = text.trim();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number)
        }
        _ => None,
    }
}

/// The later years and the others, as two digits each.
pub fn answers(year: u32) -> [Vec<Answer>; 2] {
    let years = |range: std::ops::Range<u32>| range.map(|year| Answer::Text(format!("{year:02}"))).collect();
    [years(year + 1..100), years(0..year + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_one_only_if_the_prompt_is_about_it() {
        let year = |clean: &str, number| year(&Written::Text(clean.to_owned()), number);
        // The three kinds of prompts in EAP-IG's files.
        assert_eq!(year("The plan lasted from the year 1602 to the year 16", 2), Some(2));
        assert_eq!(year("The price of that fridge ranges from $ 1643 to $ 16", 43), Some(43));
        assert_eq!(year("1208, 1216, 1223, 1233, 1256, 12", 56), Some(56));
        assert_eq!(year("The plan lasted from the year 1602 to the year 16", 1602), Some(2));
        for (clean, number) in [
            ("The plan lasted from the year 1602 to the year 16", 3),
            ("The plan lasted from the year 1602 to the year 17", 2),
            ("The plan lasted from the year 1602 to the year ", 2),
            ("The plan lasted from 02 to the year 16", 2),
            ("Mary went to", 2),
            ("", 0),
        ] {
            assert_eq!(year(clean, number), None, "{clean}");
        }
        assert_eq!(super::year(&Written::Ids(vec![1602, 16]), 2), None);
    }

    #[test]
    fn later_years_stand_against_the_others() {
        let [a, b] = answers(52);
        assert_eq!((a.len(), b.len()), (47, 53));
        assert_eq!((&a[0], &b[0]), (&Answer::Text("53".to_owned()), &Answer::Text("00".to_owned())));
        assert_eq!((&a[46], &b[52]), (&Answer::Text("99".to_owned()), &Answer::Text("52".to_owned())));
    }
}
