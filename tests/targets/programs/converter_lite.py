"""Stands in for the vendor's `converter_lite`: its flags, and behind them the wheel's converter.

Run by Python 3.7 with mindspore_lite. As there, an unknown flag is an error, encryption is on by
default, and the format of a cloud build's file is another one by default.
"""

import configparser
import os
import sys

FLAGS = {
    "fmk": "",
    "modelFile": "",
    "outputFile": "",
    "inputDataFormat": "",
    "fp16": "off",
    "configFile": "",
    "encryption": "true",
    "encryptKey": "",
    "saveType": "MINDIR",
    "optimize": "general",
}
PRELOADED = "STAND_IN_PRELOADED"


def main():
    if sys.argv[1:] == ["--help"]:
        print("usage: converter_lite [options]")
        for name, value in FLAGS.items():
            print(f"    --{name}=VALUE  default: {value}")
        return 0
    flags = dict(FLAGS)
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or not equals or name[2:] not in flags:
            print(f"Failed to load unknown flag '{word}'")
            return 1
        flags[name[2:]] = value
    if flags["encryption"] == "true" and not flags["encryptKey"]:
        print("[ERROR] LITE: encryptKey is empty")
        return 2
    sections = configparser.ConfigParser()
    sections.optionxform = str
    sections.read(flags["configFile"] or [])
    if sections.has_section("full_quant_param") and not os.environ.get(PRELOADED):
        libraries = os.environ["WHEEL_LIBRARIES"]
        os.environ["LD_LIBRARY_PATH"] = libraries
        os.environ["LD_PRELOAD"] = libraries + "/libmindspore_converter.so"
        os.environ[PRELOADED] = "1"
        os.execv(sys.executable, [sys.executable, "-I", *sys.argv])
    import mindspore_lite as lite

    converter = lite.Converter()
    kinds = {"MINDIR": lite.ModelType.MINDIR, "MINDIR_LITE": lite.ModelType.MINDIR_LITE}
    converter.save_type = kinds[flags["saveType"]]
    if flags["inputDataFormat"]:
        converter.input_format = getattr(lite.Format, flags["inputDataFormat"])
    converter.weight_fp16 = {"on": True, "off": False}[flags["fp16"]]
    converter.optimize = flags["optimize"]
    for section in sections.sections():
        converter.set_config_info(section, dict(sections[section]))
    try:
        converter.convert(
            getattr(lite.FmkType, flags["fmk"]), flags["modelFile"], flags["outputFile"]
        )
    except RuntimeError as error:
        print(f"[ERROR] LITE: {error}")
        return 3
    print("CONVERT RESULT SUCCESS:0")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
