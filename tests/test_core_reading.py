"""XML in any encoding, flags in any spelling, text with a byte order mark."""

import numpy as np
import pytest

from backbones.core.errors import InputError
from backbones.core.files import load_json, load_lines
from backbones.core.flags import parse_flag
from backbones.core.xml_files import load_xml, only_text, parse_xml


@pytest.mark.parametrize("encoding", ["GB2312", "gbk", "Big5", "Shift_JIS", "UTF-8", "utf8", "utf-16", "utf-32"])
def test_xml_is_read_in_its_declared_encoding(tmp_path, encoding):
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>\n<a><b>\n 中 \n</b></a>'.encode(encoding))
    assert only_text(load_xml(path), "b") == "中"


@pytest.mark.parametrize("encoding", ["windows-1252", "ISO-8859-1"])
def test_xml_in_a_western_encoding(encoding):
    data = f"<?xml version='1.0' encoding='{encoding}'?><a><b>Café</b></a>".encode(encoding)
    assert only_text(parse_xml(data), "b") == "Café"


def test_a_byte_order_mark_outweighs_the_declaration():
    text = '<?xml version="1.0" encoding="GB2312"?><a><b>é</b></a>'
    assert only_text(parse_xml(text.encode("utf-8-sig")), "b") == "é"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding 'klingon'"),
        (b'<?xml version="1.0" encoding="hex"?><a/>', "unknown encoding 'hex'"),  # not a text encoding
        (b"<a>\xff\xfe</a>", "not valid in its encoding 'utf-8'"),
        (b'<?xml version="1.0" encoding="ascii"?><a>\xe9</a>', "not valid in its encoding 'ascii'"),
        (b"", "broken XML"),
        (b"<a>\0</a>", "broken XML"),
        (b"<a><b></a>", "broken XML"),
    ],
)
def test_broken_xml_is_named(tmp_path, data, message):
    path = tmp_path / "000001.xml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"000001.xml.*{message}"):
        load_xml(path)


def test_a_repeated_element_is_refused():
    with pytest.raises(ValueError, match="2 elements <name> in one <object>"):
        only_text(parse_xml(b"<object><name>a</name><name>b</name></object>"), "name")
    assert only_text(parse_xml(b"<object/>"), "name") is None
    assert only_text(parse_xml(b"<object><name/></object>"), "name") == ""


def test_flags_say_what_they_spell():
    for value in (1, True, 1.0, "1", "1.0", " TRUE ", "True", np.int64(1), np.True_):
        assert parse_flag(value) is True, value
    for value in (0, False, 0.0, "0", "0.0", "false", "FALSE\n", np.float64(0), np.False_):
        assert parse_flag(value) is False, value
    for value in (2, -1, 0.5, float("nan"), None, "", "yes", "maybe", [], [1], {}, "01"):
        assert parse_flag(value) is None, value


def test_text_files_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff one \r\n\n two é\n".encode())
    assert load_lines(path) == ["one", "two é"]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes('{"é": [1]}'.encode(encoding))
        assert load_json(path) == {"é": [1]}
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"list.txt is not a text file in UTF-8"):
        load_lines(path)
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"cannot read .*list.txt as JSON"):
        load_json(path)
