"""`lineside-flash`: reads the arguments, hands them to `firmware_configs.commands`, makes exit codes of errors."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from firmware_configs.errors import FlashError

app = typer.Typer(
    name="lineside-flash",
    help="From a blank card to a device that decides: build its system, write it, prove it.",
    epilog="Exit codes: 0 done, 1 not as it should be, 2 wrong use, 3 refused, 4 not built, 5 the medium failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
ProfileArgument = Annotated[str, typer.Argument(help="A profile of `list`, or a file of your own.toml.")]

SiteOption = Annotated[str, typer.Option(help="Where it stands; rollouts draw from every site.")]
CloudOption = Annotated[
    str | None, typer.Option("--cloud", "--broker", help="The control plane's address; without, it works alone.")
]
ClaimOption = Annotated[
    str | None, typer.Option(help="Token of `lineside-cloud devices claim`, or @FILE with it.", metavar="TOKEN")
]
BundlesOption = Annotated[list[Path] | None, typer.Option(help="To begin with; may be repeated.", metavar="FILE")]
ModelOption = Annotated[str | None, typer.Option(help="The model that decides, if no bundle says it.")]
StationsOption = Annotated[
    Path | None, typer.Option(help="The device's TOML but for [device] and [cloud]; without, it watches a folder.")
]
RootOption = Annotated[Path | None, typer.Option(help="root.json of `lineside-cloud keys init`: whom to trust.")]
InputsOption = Annotated[Path | None, typer.Option(help="Folder with pictures that it finds at its start.")]
WifiOption = Annotated[str | None, typer.Option(help="Network and passphrase.", metavar="NAME:PASSPHRASE")]


@app.command("list")
def list_disks(as_json: JsonOption = False) -> None:
    """Show the disks that may be written, why others may not, and the profiles."""
    from firmware_configs.commands import list as command

    _exit(lambda: command.run(machines=as_json))


@app.command()
def build(
    profile: ProfileArgument,
    wheel: Annotated[
        Path | None, typer.Option(help="The project's wheel; without it, made from this checkout.")
    ] = None,
    lock: Annotated[Path | None, typer.Option(help="requirements.lock; without it, this checkout's.")] = None,
    mirror: Annotated[
        list[str] | None, typer.Option(help="A line of sources.list instead of Debian's own; may be repeated.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(help="Seconds since 1970 that no file is newer than.", envvar="SOURCE_DATE_EPOCH")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Build although the image is there.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Build once more and compare: exit code 1 if the two differ.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the operating system's image of a profile from Debian packages, or find the one that was made."""
    from firmware_configs.commands import build as command
    from firmware_configs.image.make import Inputs

    inputs = Inputs(wheel=wheel, lock=lock, mirrors=tuple(mirror or ()), epoch=epoch)
    if check:
        _exit(lambda: command.check(profile, inputs, machines=as_json))
    _exit(lambda: command.run(profile, inputs, anew=anew, machines=as_json))


@app.command()
def write(
    profile: ProfileArgument,
    to: Annotated[Path, typer.Option(help="A disk of `list`, or a file.", metavar="DISK|FILE")],
    device_name: Annotated[str, typer.Option(help="The device's name: lower case, digits, - and _.")],
    site: SiteOption = "default",
    cloud: CloudOption = None,
    claim: ClaimOption = None,
    bundle: BundlesOption = None,
    model: ModelOption = None,
    stations: StationsOption = None,
    root: RootOption = None,
    inputs: InputsOption = None,
    ssh_key: Annotated[
        Path | None, typer.Option(help="Public keys that may log in as root; without, nobody may.")
    ] = None,
    wifi: WifiOption = None,
    size: Annotated[str, typer.Option(help="Of a file.")] = "4G",
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
    fixed_disk: Annotated[bool, typer.Option("--fixed-disk", help="A disk that cannot be taken out is meant.")] = False,
    confirm: Annotated[
        str | None, typer.Option(help="The disk's model, instead of typing it.", metavar="MODEL")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say every range of bytes, write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
    receipt: Annotated[Path | None, typer.Option(help="Keep the receipt here as well.", metavar="FILE")] = None,
    kernel_options: Annotated[str, typer.Option(help="Further words for the kernel's command line.")] = "",
) -> None:
    """Write a card: system, identity and bundle of one device; read it back; print the receipt as JSON."""
    from firmware_configs.commands import write as command

    order = command.Order(
        profile=profile, to=to, device=device_name, site=site, cloud=cloud, claim=claim, bundles=bundle or [],
        model=model, stations=stations, root=root, inputs=inputs, ssh_key=ssh_key, wifi=wifi, size=size, image=image,
        fixed_disk=fixed_disk, confirm=confirm, dry_run=dry_run, replace=replace, receipt=receipt,
        kernel_options=kernel_options,
    )  # fmt: skip
    _exit(lambda: command.run(order))


@app.command()
def batch(
    devices: Annotated[Path, typer.Argument(help="The list, CSV: name, and what differs from card to card.")],
    receipts: Annotated[Path, typer.Option(help="Folder for a receipt of each card; those there are done.")],
    labels: Annotated[Path | None, typer.Option(help="Folder for a label of each device (PNG), to print.")] = None,
    profile: Annotated[str, typer.Option(help="Of cards that say no other.")] = "x86-box",
    to: Annotated[Path, typer.Option(help="The reader, if all cards go through one.", metavar="DISK")] = Path(),
    site: Annotated[str, typer.Option(help="Of devices that say no other.")] = "default",
    cloud: Annotated[str | None, typer.Option(help="The control plane's address for devices.")] = None,
    server: Annotated[
        str | None, typer.Option(help="The control plane's address for people: it is asked for a claim of each device.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="Token of `lineside-cloud login` for that.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Whom to verify --server by (PEM).")] = None,
    bundle: BundlesOption = None,
    stations: Annotated[Path | None, typer.Option(help="The devices' TOML but for [device] and [cloud].")] = None,
    root: RootOption = None,
    ssh_key: Annotated[Path | None, typer.Option(help="Public keys that may log in as root.")] = None,
    size: Annotated[str, typer.Option(help="Of files.")] = "4G",
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
    confirm: Annotated[
        str | None, typer.Option(help="The reader's model, instead of typing it for each card.", metavar="MODEL")
    ] = None,
) -> None:
    """Write many cards one after another, each with its own identity, receipt and label; goes on where it was left.

    Columns: name, site, profile, to, claim, cloud, bundle, stations, ssh_key, wifi, size, confirm. Exit codes: 0 all
    there, 1 some are missing, 2 the list is wrong and nothing was written.
    """
    from firmware_configs.claims import asked
    from firmware_configs.commands import batch as command
    from firmware_configs.commands.write import Order

    usual = Order(
        profile=profile, to=to, device="", site=site, cloud=cloud, bundles=bundle or [], stations=stations, root=root,
        ssh_key=ssh_key, size=size, image=image, confirm=confirm,
    )  # fmt: skip
    _exit(lambda: command.run(command.Batch(devices, usual, receipts, labels, asked(server, token_file, ca))))


@app.command()
def pack(
    profile: ProfileArgument,
    version: Annotated[
        str | None, typer.Option(help="Under which it is rolled out; without, that of the program in it.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; without, by its name and version.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack an image into one file, to be published and rolled out: an update of the operating system."""
    from firmware_configs.commands import pack as command

    _exit(lambda: command.run(profile, version, image, out, machines=as_json))


@app.command()
def inject(
    to: Annotated[Path, typer.Option(help="The new image, or the seed.", metavar="FILE")],
    profile: Annotated[str, typer.Option(help="A profile of `list`, or a file of your own.toml.")],
    device_name: Annotated[str, typer.Option(help="The device's name: lower case, digits, - and _.")],
    image: Annotated[
        Path | None,
        typer.Argument(
            help="A stock system's disk (raw): Raspberry Pi OS, Debian or Ubuntu for clouds. It stays as it is."
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="Without IMAGE: a seed to attach as a disk, for bookworm, noble or trixie.", metavar="CODENAME"
        ),
    ] = None,
    site: SiteOption = "default",
    cloud: CloudOption = None,
    claim: ClaimOption = None,
    bundle: BundlesOption = None,
    model: ModelOption = None,
    stations: StationsOption = None,
    root: RootOption = None,
    inputs: InputsOption = None,
    ssh_key: Annotated[
        Path | None, typer.Option(help="Public keys of the system's own user; without, nobody logs in.")
    ] = None,
    wifi: WifiOption = None,
    size: Annotated[
        str, typer.Option(help="Of the disk that the image is for, if it is to be larger than it is.")
    ] = "",
    wheel: Annotated[Path | None, typer.Option(help="The project's wheel; without, made from this checkout.")] = None,
    lock: Annotated[Path | None, typer.Option(help="requirements.lock; without, this checkout's.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Put identity, bundle and wheels onto a stock system's image, for cloud-init to take in at its first start."""
    from firmware_configs.commands import inject as command
    from firmware_configs.commands.write import Order
    from firmware_configs.image.make import Inputs

    order = Order(
        profile=profile, to=to, device=device_name, site=site, cloud=cloud, claim=claim, bundles=bundle or [],
        model=model, stations=stations, root=root, inputs=inputs, ssh_key=ssh_key, wifi=wifi, size=size,
        replace=replace,
    )  # fmt: skip
    wanted = command.Injection(order, image, system, Inputs(wheel=wheel, lock=lock))
    _exit(lambda: command.run(wanted))


@app.command()
def verify(
    receipt: Annotated[Path, typer.Argument(help="The receipt of `write`.")],
    to: Annotated[Path, typer.Option(help="The disk or file.", metavar="DISK|FILE")],
) -> None:
    """Compare a disk or file with its receipt.

    Exit codes: 0 as written, 1 only the system is (the device has started since), 5 not even that.
    """
    from firmware_configs.commands import verify as command

    _exit(lambda: command.run(receipt, to))


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half made is cleared away then too
    app()


def _exit(work: Callable[[], int]) -> None:
    try:
        code = work()
    except FlashError as error:
        sys.stderr.write(f"lineside-flash: {error.for_people()}\n")
        code = error.exit_code
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        sys.stderr.write("lineside-flash: interrupted; a medium that was being written has no partitions\n")
        code = 130
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
