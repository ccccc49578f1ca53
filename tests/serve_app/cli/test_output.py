"""What programs read: JSON, whatever the numbers."""

import json
import math

import pytest

from serve_app.cli.output import print_json


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_null_or_refused(number: float, capsys) -> None:
    print_json([{"share": number}])
    assert json.loads(capsys.readouterr().out) == [{"share": None}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json([{"share": number}], finite=True)
    assert capsys.readouterr().out == ""
    print_json([{"share": 0.5}], finite=True)
    assert json.loads(capsys.readouterr().out) == [{"share": 0.5}]
