//! A cooking school's recipes: cooks, ingredients, recipes, ingredient lines.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, things};

pub(super) const RECIPES: Family = Family {
    name: "recipes",
    settings: &[
        "I run the recipe desk of a cooking school.",
        "We're putting together the menu of our next cooking course.",
        "I keep the recipe collection of our cooking club in order.",
    ],
    tables: &[
        people(
            ["cook", "cooks"],
            &["cook", "author", "cook_name"],
            (12, 20),
            &[
                choice(
                    &["specialty", "focus"],
                    "specialty",
                    &["pastry", "grilling", "soups", "preserves"],
                    "specialising in {}",
                ),
                number(
                    &["experience", "years_cooking"],
                    "years of experience",
                    (1, 40, 1),
                    Measure::Level("years"),
                    ["with at least {} years of experience", "with at most {} years of experience"],
                    ["the most experienced {}", "the least experienced {}"],
                ),
            ],
        ),
        things(
            ["ingredient", "ingredients"],
            &["ingredient", "item", "ingredient_name"],
            Naming::Pair(
                &["Red", "Green", "Smoked", "Fresh", "Dried", "Wild", "Pickled"],
                &["Onion", "Paprika", "Garlic", "Mushroom", "Plum", "Fennel", "Tomato", "Bean"],
            ),
            (26, 40),
            &[
                number(
                    &["price", "pack_price"],
                    "price",
                    (1, 24, 1),
                    Measure::Money("€"),
                    ["with a price of at least {}", "with a price of at most {}"],
                    ["the {} with the highest price", "the {} with the lowest price"],
                ),
                choice(
                    &["aisle", "section"],
                    "aisle",
                    &["produce", "dairy", "spices", "dry goods"],
                    "kept in the {} aisle",
                ),
                flag(&["vegan", "is_vegan"], "whether it is vegan", ["that are vegan", "that are not vegan"]),
                date(
                    &["best_before", "expiry"],
                    "best-before date",
                    (20_400, 260),
                    ["best before {} or later", "best before {} or earlier"],
                    ["the {} that keeps longest", "the {} that has to be used first"],
                )
                .optional(),
            ],
        ),
        things(
            ["recipe", "recipes"],
            &["recipe", "dish", "recipe_title"],
            Naming::Pair(
                &["Grandmother's", "Quick", "Sunday", "Harbour", "Mountain", "Winter", "Midsummer"],
                &["Stew", "Risotto", "Tart", "Salad", "Casserole", "Dumplings", "Curry", "Pie"],
            ),
            (30, 46),
            &[
                link(&["cook", "written_by"], "cook", 0, "written by {}"),
                number(
                    &["minutes", "cooking_time"],
                    "cooking time",
                    (10, 180, 5),
                    Measure::Sum("minutes"),
                    ["taking at least {} minutes", "taking at most {} minutes"],
                    ["the {} that takes longest", "the quickest {}"],
                ),
                number(
                    &["servings", "portions"],
                    "number of servings",
                    (2, 12, 1),
                    Measure::Sum("servings"),
                    ["with at least {} servings", "with at most {} servings"],
                    ["the {} with the most servings", "the {} with the fewest servings"],
                ),
                choice(&["course", "meal"], "course", &["starter", "main", "dessert"], "served as a {}"),
                number(
                    &["rating", "stars"],
                    "rating",
                    (20, 50, 1),
                    Measure::Tenths("star"),
                    ["with a rating of at least {} stars", "with a rating of at most {} stars"],
                    ["the {} with the highest rating", "the {} with the lowest rating"],
                )
                .optional(),
            ],
        ),
        things(
            ["ingredient line", "ingredient lines"],
            &["line_id", "line", "id"],
            Naming::Code("IL"),
            (70, 110),
            &[
                link(&["recipe", "dish"], "recipe", 2, "of {}"),
                link(&["ingredient", "item"], "ingredient", 1, "calling for {}"),
                number(
                    &["grams", "weight_grams"],
                    "weight",
                    (10, 900, 5),
                    Measure::Sum("grams"),
                    ["weighing at least {} grams", "weighing at most {} grams"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                flag(
                    &["optional_line", "can_be_left_out"],
                    "whether it can be left out",
                    ["that can be left out", "that must not be left out"],
                ),
            ],
        ),
    ],
};
