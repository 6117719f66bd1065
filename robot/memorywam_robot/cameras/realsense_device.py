"""What is read from and written to a RealSense device before it streams."""

from memorywam_robot.cameras.realsense_options import RealSenseOptions, Stream, Vendor
from memorywam_runtime.errors import InputError

__all__ = [
    "check_stream",
    "check_usb",
    "colour_sensor",
    "lock_exposure",
    "offered",
    "prepare",
    "said",
]

MIN_USB = 3.0
"""As the library tells it, `3.2`; slower ports have a tenth of the bandwidth."""
_SYNC_MODES = {"master": 1.0, "slave": 2.0}


def said(device: Vendor, info: Vendor) -> str:
    """Return what a device says of itself, or nothing."""
    return str(device.get_info(info)) if device.supports(info) else ""


def check_usb(device: Vendor, rs: Vendor, options: RealSenseOptions) -> None:
    """Refuse a slow port, unless told to take it.

    Raises:
        InputError: USB 2.
    """
    usb = said(device, rs.camera_info.usb_type_descriptor)
    try:
        version = float(usb)
    except ValueError:
        # MIPI and Ethernet cameras name no USB.
        return
    if version < MIN_USB and not options.is_usb2_allowed:
        raise InputError(
            f"camera {options.serial} is on USB {usb}; expected 3 or more: use a USB 3 cable and "
            "port, plugged in quickly and fully, or add the option usb2 to take it as it is"
        )


def colour_sensor(device: Vendor, rs: Vendor) -> Vendor:
    """Return the sensor that gives colour: of a D405 that is the stereo module.

    Raises:
        InputError: there is none.
    """
    for sensor in device.query_sensors():
        if any(p.stream_type() == rs.stream.color for p in sensor.get_stream_profiles()):
            return sensor
    name = said(device, rs.camera_info.name) or "the device"
    raise InputError(f"{name} has no colour stream; expected a camera that has one")


def prepare(sensor: Vendor, rs: Vendor, options: RealSenseOptions) -> None:
    """Write all options that are ever written before the stream starts.

    Raises:
        InputError: hardware synchronisation is asked of a sensor that has none.
    """
    option = rs.option
    # Else the rate halves in low light; a dark image at full rate is the smaller evil.
    _write(sensor, option.auto_exposure_priority, 0.0)
    _write(sensor, option.global_time_enabled, 1.0)
    # The library's own pool; its default of 16 is half a second at 30 Hz.
    _write(sensor, option.frames_queue_size, 32.0)
    _write(sensor, option.enable_auto_exposure, 1.0)
    _write(sensor, option.enable_auto_white_balance, 1.0)
    if options.sync:
        mode = _SYNC_MODES[options.sync]
        if not _write(sensor, option.inter_cam_sync_mode, mode):
            name = said(sensor, rs.camera_info.name) or "the sensor"
            raise InputError(
                f"{name} cannot be synchronised by hardware; leave out the option {options.sync}"
            )


def lock_exposure(sensor: Vendor, rs: Vendor) -> bool:
    """Keep exposure and white balance as they are; return whether there was any to keep.

    Frames may be lost meanwhile, so it is called before memory begins and never after.
    """
    option = rs.option
    kept = [
        (value, sensor.get_option(value))
        for value in (option.exposure, option.gain, option.white_balance)
        if sensor.supports(value)
    ]
    switches = (option.enable_auto_exposure, option.enable_auto_white_balance)
    is_written = [_write(sensor, switch, 0.0) for switch in switches]
    # Without its automatic a sensor may fall back to the values set by hand last.
    for value, number in kept:
        _write(sensor, value, number)
    return any(is_written)


def check_stream(profile: Vendor, rs: Vendor, options: RealSenseOptions) -> None:
    """Refuse a stream that is not what was asked for.

    Raises:
        InputError: another size, rate or format.
    """
    video = profile.as_video_stream_profile()
    form = str(video.format()).rpartition(".")[2]
    found = (video.width(), video.height(), video.fps())
    wanted = options.wanted or found
    if found != wanted or form != "rgb8":
        raise InputError(
            f"camera {options.serial or options.file} gives {_spelt(found)} {form}; expected "
            f"{_spelt(wanted)} rgb8"
        )


def offered(sensor: Vendor, rs: Vendor) -> str:
    """Return the colour streams of a sensor that could be asked for, for an error."""
    found = {
        (video.width(), video.height(), video.fps())
        for profile in sensor.get_stream_profiles()
        if profile.stream_type() == rs.stream.color and profile.format() == rs.format.rgb8
        for video in [profile.as_video_stream_profile()]
    }
    return ", ".join(_spelt(stream) for stream in sorted(found)) or "none"


def _spelt(stream: Stream) -> str:
    width, height, hz = stream
    return f"{width}x{height}@{hz}"


def _write(sensor: Vendor, option: Vendor, value: float) -> bool:
    """Write an option where there is one; return whether there is."""
    if not sensor.supports(option) or sensor.is_option_read_only(option):
        return False
    if sensor.get_option(option) != value:
        sensor.set_option(option, value)
    return True
