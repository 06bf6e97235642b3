//! Files beneath the folders that the owner's policy opens. Every path is taken apart in `roots`, every name is then used
//! beneath an open folder (`place`), and every failure gets its code in `error`.

pub mod error;
pub mod place;
pub mod roots;

pub use self::{
    error::FileError,
    place::{Place, Temp},
    roots::{Access, Links, Roots},
};
