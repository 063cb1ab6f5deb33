import pytest

from export.errors import UnavailableError, UserError, VerificationError


@pytest.mark.parametrize(("error", "exit_code"), [(VerificationError, 1), (UserError, 2), (UnavailableError, 3)])
def test_the_exit_codes_are_those_of_the_documentation(error: type[UserError], exit_code: int) -> None:
    assert error("message").exit_code == exit_code
    assert issubclass(error, UserError)
