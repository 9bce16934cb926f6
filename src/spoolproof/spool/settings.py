"""Where the spool is, and how large it may grow."""

from __future__ import annotations

from pydantic import Field, field_validator

from spoolproof.settings_group import SettingsGroup

OFF = "off"


class SpoolSettings(SettingsGroup):
    """Settings of the spool."""

    spool: str = ""
    """The folder of its files, on a disk that outlives the process, or `off`. Default: `spool` in the data directory
    where the store is another machine's; `off` where the store is a file, since what ails one disk ails both."""
    spool_rows_max: int = Field(1_000_000, ge=1)
    """Events it may hold in one process; then publish raises SpoolFull."""
    spool_bytes_max: int = Field(1024**3, ge=1024**2)
    """Bytes it may hold in one process."""
    spool_free_bytes_min: int = Field(256 * 1024**2, ge=16 * 1024**2)
    """What stays free on its disk: emptying it needs some, too."""

    @field_validator("spool")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if value.startswith("~"):
            raise ValueError("nothing expands ~; write the whole path, or off")
        if "://" in value:
            raise ValueError("write a folder, as in /var/lib/shop/spool, or off")
        return value
