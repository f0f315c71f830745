/** Build information as the real `go version -m` tells it, in the form of lib/go-buildinfo.ts. */
import { type GoBuildInfo, type GoModule, parseBuildInfo } from "../../lib/go-buildinfo.ts";
import { output } from "./oracle.ts";
import { isObject, readList } from "./registry-images.ts";

/** What `go version -m -json` says of a program. @throws {Error} If go refuses it. */
export async function askGoVersion(path: string): Promise<GoBuildInfo> {
  const text = await output(["go", "version", "-m", "-json", path], { cwd: "/", env: process.env });
  const value: unknown = JSON.parse(text);
  if (!isObject(value)) throw new Error(`go version -m -json wrote ${text}`);
  const main = moduleOf(value["Main"]);
  return {
    goVersion: textOf(value["GoVersion"]),
    path: textOf(value["Path"]),
    ...(main === undefined ? {} : { main }),
    deps: readList(value["Deps"]).flatMap((dep) => moduleOf(dep) ?? []),
    settings: readList(value["Settings"]).map(({ Key, Value }) => ({ key: textOf(Key), value: textOf(Value) })),
  };
}

/** What a text that `go version -m` printed says. */
export function readGoVersionText(text: string): GoBuildInfo {
  const [first = "", ...lines] = text.split("\n");
  const goVersion = first.slice(first.lastIndexOf(": ") + 2);
  return parseBuildInfo(goVersion, lines.map((line) => line.replace(/^\t/, "")).join("\n"));
}

function moduleOf(value: unknown): GoModule | undefined {
  if (!isObject(value) || Object.keys(value).length === 0) return undefined;
  const { Path, Replace, Sum, Version } = value;
  const replace = moduleOf(Replace);
  return {
    path: textOf(Path),
    version: textOf(Version),
    ...(Sum === undefined || Sum === "" ? {} : { sum: textOf(Sum) }),
    ...(replace === undefined ? {} : { replace }),
  };
}

function textOf(value: unknown): string {
  if (value === undefined) return "";
  if (typeof value === "string") return value;
  throw new Error(`${JSON.stringify(value)} is no string`);
}
