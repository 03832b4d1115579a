"""Values that tools write into COCO json, as changes of a sound file, with the expected outcome of each."""

from helpers.detection_files import HEIGHT, WIDTH

SPELLED = "file names spelled differently from the files"


def setting(part, n, **fields):
    return lambda tree: tree[part][n].update(fields)


def everywhere(part, **fields):
    return lambda tree: [entry.update(fields) for entry in tree[part]]


def scaled(tree):
    for entry in tree["annotations"]:
        entry["bbox"] = [v / side for v, side in zip(entry["bbox"], (WIDTH, HEIGHT, WIDTH, HEIGHT), strict=True)]


def as_corners(tree):
    for entry in tree["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]


# name -> (change, kind of error, text of the error line)
REFUSED = {
    "05a width in text": (
        everywhere("images", width="96"),
        "wrong values",
        "id 1: width must be a whole number, is the text '96'",
    ),
    "05a fraction": (setting("images", 1, height=72.5), "wrong values", "id 2: height must be a whole number, is 72.5"),
    "05a true": (setting("images", 1, width=True), "wrong values", "id 2: width must be a whole number, is true"),
    "05a list": (
        setting("images", 2, width=[96]),
        "wrong values",
        "id 3: width must be a whole number, is the list [96]",
    ),
    "05d number": (setting("images", 1, file_name=12), "wrong values", "id 2: file_name must be a text, is 12"),
    "05d null": (setting("images", 1, file_name=None), "wrong values", "id 2: file_name must be a text, is null"),
    "05d empty": (
        setting("images", 1, file_name=" "),
        "wrong values",
        "id 2: file_name must be a text, is the text ' '",
    ),
    "05d half a letter": (
        setting("images", 1, file_name="\ud800.jpg"),
        "wrong values",
        "id 2: file_name must be a text",
    ),
    "05h text": (
        setting("annotations", 0, category_id="1"),
        "not an integer",
        "id 1: category_id must be an integer, is the text '1'",
    ),
    "05h fraction": (
        setting("annotations", 0, image_id=1.0),
        "not an integer",
        "id 1: image_id must be an integer, is 1.0",
    ),
    "05h true": (
        setting("annotations", 0, category_id=True),
        "not an integer",
        "category_id must be an integer, is true",
    ),
    "05h list": (
        setting("annotations", 0, category_id=[1]),
        "not an integer",
        "category_id must be an integer, is the list [1]",
    ),
    "id true": (setting("images", 0, id=True), "without an integer id", "images[0]: id must be an integer, is true"),
    "06a word": (
        setting("annotations", 2, iscrowd="maybe"),
        "neither 0 nor 1",
        "id 3: iscrowd must be 0 or 1, is the text 'maybe'",
    ),
    "06a two": (setting("annotations", 2, iscrowd=2), "neither 0 nor 1", "id 3: iscrowd must be 0 or 1, is 2"),
    "06a null": (setting("annotations", 2, iscrowd=None), "neither 0 nor 1", "id 3: iscrowd must be 0 or 1, is null"),
    "06a ignore": (
        setting("annotations", 2, ignore="x"),
        "neither 0 nor 1",
        "id 3: ignore must be 0 or 1, is the text 'x'",
    ),
    "21 image": (
        setting("images", 0, id=2**63),
        "integer id",
        "id must be an integer of at most 64 bits, is 9223372036854775808",
    ),
    "21 annotation": (
        setting("annotations", 0, id=-(2**63) - 1),
        "integer id",
        "id must be an integer of at most 64 bits",
    ),
    "21 category": (setting("categories", 0, id=2**70), "integer id", "id must be an integer of at most 64 bits"),
    "21 reference": (
        setting("annotations", 0, image_id=2**64 + 1),
        "not an integer",
        "image_id must be an integer of at most 64",
    ),
    "22f normalised": (scaled, "below one pixel", "annotation id 1"),
    "22f some": (
        lambda tree: tree["annotations"][3].update(bbox=[0.2, 0.5, 0.25, 0.5], area=0.1),
        "below one pixel",
        "id 4",
    ),
    "22f area": (setting("annotations", 0, area=5220), "areas larger than their box", "annotation id 1"),
    "two corners": (as_corners, "only as two corners", "annotation id 1"),
    "box in text": (
        setting("annotations", 0, bbox=["28", "36", "18", "29"]),
        "not 4 numbers",
        "bbox ['28', '36', '18', '29']",
    ),
    "box of truths": (setting("annotations", 0, bbox=[True, 1, 5, 5]), "not 4 numbers", "bbox [True, 1, 5, 5]"),
    "segmentation alone": (
        lambda tree: tree["annotations"][0].pop("bbox"),
        "not 4 numbers",
        "id 1 (image id 1, bbox missing)",
    ),
    "area in text": (
        setting("annotations", 0, area="522"),
        "not a number of at least 0",
        "id 1: area is the text '522'",
    ),
    "area of truth": (setting("annotations", 0, area=True), "not a number of at least 0", "id 1: area is true"),
    "30a empty": (setting("categories", 0, name=""), "names that are not text", "id 1: name is the text ''"),
    "30a null": (setting("categories", 0, name=None), "names that are not text", "id 1: name is null"),
    "30a list": (setting("categories", 0, name=["red"]), "names that are not text", "id 1: name is the list ['red']"),
    "25 twins": (
        setting("categories", 1, name="red", supercategory="none"),
        "repeated category names",
        "'red' is duplicated",
    ),
    "25 annotated root": (
        lambda tree: [
            entry.update(name="red", supercategory=above)
            for entry, above in zip(tree["categories"], ("none", "red"), strict=True)
        ],
        "repeated category names",
        "'red' is duplicated",
    ),
    "entry of no object": (
        lambda tree: tree["images"].insert(1, 3),
        "without an integer id",
        "images[1] is 3, not an object",
    ),
}

# name -> (change, counted warnings); the data read equal those of the sound file
AS_SOUND = {
    "05a whole fraction": (everywhere("images", width=96.0, height=72.0), {}),
    "06a text 0": (everywhere("annotations", iscrowd="0"), {}),
    "06a false": (everywhere("annotations", iscrowd=False), {}),
    "06a word": (everywhere("annotations", iscrowd="False"), {}),
    "06a fraction": (everywhere("annotations", iscrowd=0.0), {}),
    "no iscrowd (LVIS, Objects365)": (lambda tree: [entry.pop("iscrowd") for entry in tree["annotations"]], {}),
    "20 ignore": (setting("annotations", 1, ignore=1), {"annotations with `ignore`": 1}),
    "20 ignore in text": (everywhere("annotations", ignore="true"), {"annotations with `ignore`": 6}),
    "20 ignore that is 0": (everywhere("annotations", ignore=0), {}),
    "10 backslash": (
        lambda tree: [entry.update(file_name="images\\" + entry["file_name"]) for entry in tree["images"]],
        {SPELLED: 3},
    ),
    "10 quoted": (setting("images", 0, file_name="%701.jpg"), {SPELLED: 1}),
    "10 url": (setting("images", 0, file_name="https://host/data/p1.jpg"), {SPELLED: 1}),
    "10 query": (setting("images", 0, file_name="/data/local-files/?d=some/images/p1.jpg"), {SPELLED: 1}),
    "10 drive": (setting("images", 0, file_name="C:\\Users\\x\\p1.jpg"), {SPELLED: 1}),
    "10 absolute": (setting("images", 0, file_name="/elsewhere/images/p1.jpg"), {SPELLED: 1}),
    "10 case": (setting("images", 0, file_name="P1.JPG"), {SPELLED: 1}),
    "10 dot": (setting("images", 0, file_name="./p1.jpg"), {}),
    "10 up": (setting("images", 0, file_name="../images/p1.jpg"), {}),
    "25 roboflow": (
        lambda tree: (
            tree["categories"].insert(0, {"id": 0, "name": "red", "supercategory": "none"})
            or tree["categories"][1].update(supercategory="red")
        ),
        {"categories ignored": 1},
    ),
}
