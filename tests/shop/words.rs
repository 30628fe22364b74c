//! The shop's vocabulary: departments and their shelves, brands, and the words of titles.
//!
//! A shelf is the leaf of the category tree and, in lower case, what people type to find it. All
//! names of brands are made up.

/// A department and what stands on its shelves.
pub(crate) const DEPARTMENTS: [(&str, [&str; 5]); 12] = [
    ("Cycling", ["bicycle helmet", "pannier bag", "chain lubricant", "bike light", "repair stand"]),
    ("Coffee and tea", ["espresso beans", "green tea", "milk frother", "teapot", "pour over dripper"]),
    ("Bedroom", ["duvet", "memory foam pillow", "linen sheets", "mattress topper", "wool blanket"]),
    ("Bathroom", ["bath towel", "shower curtain", "soap dispenser", "bathrobe", "toothbrush holder"]),
    ("Workshop", ["cordless drill", "wood chisel", "tape measure", "claw hammer", "sandpaper"]),
    ("Sewing", ["sewing machine", "cotton fabric", "knitting yarn", "embroidery hoop", "fabric scissors"]),
    ("Climbing", ["climbing harness", "dynamic rope", "chalk bag", "quickdraw", "bouldering pad"]),
    ("Lighting", ["pendant light", "led bulb", "floor lamp", "string lights", "dimmer switch"]),
    ("Music", ["acoustic guitar", "drum sticks", "digital piano", "microphone stand", "violin bow"]),
    ("Painting", ["watercolour set", "acrylic paint", "paint brush", "stretched canvas", "sketchbook"]),
    ("Travel", ["carry on suitcase", "packing cubes", "neck pillow", "passport wallet", "luggage scale"]),
    ("Winter sports", ["ski goggles", "snowboard", "thermal base layer", "ski wax", "snow gloves"]),
];

/// The two halves of a brand's name.
pub(crate) const BRAND_STARTS: [&str; 8] =
    ["Tarn", "Hal", "Brim", "Quill", "Sorrel", "Vesper", "Kest", "Onder"];
pub(crate) const BRAND_ENDS: [&str; 6] = ["field", "by", "mere", "stead", "ling", "holm"];

/// What a title says about the thing before its name.
pub(crate) const QUALITIES: [&str; 14] = [
    "Handmade",
    "Slim",
    "Everyday",
    "Professional",
    "Travel size",
    "Recycled",
    "Extra strong",
    "Beginner",
    "Quick drying",
    "Large",
    "Limited edition",
    "Washable",
    "Child safe",
    "Low noise",
];

/// What a title says after it.
pub(crate) const FINISHES: [&str; 10] = [
    "in charcoal",
    "in ivory",
    "in moss green",
    "in copper",
    "in sky blue",
    "in terracotta",
    "set of two",
    "set of four",
    "with case",
    "with warranty",
];

/// What a description promises.
pub(crate) const PROMISES: [&str; 8] = [
    "Made to be repaired, with spare parts on sale",
    "Tested for ten thousand uses",
    "Packed without plastic",
    "A favourite of our own staff",
    "Easy to clean and to put away",
    "Designed with people who use it daily",
    "Lasts for years when looked after",
    "Simple instructions are in the box",
];

pub(crate) const AGE_GROUPS: [&str; 6] = ["16-24", "25-34", "35-44", "45-54", "55-64", "65+"];

/// Regions, each followed by its share in sixteenths.
pub(crate) const REGIONS: [(&str, u64); 4] = [("coast", 7), ("valley", 5), ("hills", 3), ("islands", 1)];
