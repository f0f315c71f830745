/** Reads SBOM documents strictly, and the build information of Go programs. */
import { Ajv } from "ajv";
import { type GoBuildInfo, type GoModule, parseBuildInfo } from "../../lib/go-buildinfo.ts";
import { isObject, readList } from "./registry-images.ts";
import { output } from "./world-programs.ts";
import schema from "../fixtures/spdx/document.schema.json" with { type: "json" };

/** The rules for a document by itself; that identifiers lead somewhere is checked below. */
const validate = new Ajv().compile(schema);

/** What is wrong with a document, one line each. */
export function findSpdxProblems(bytes: Uint8Array): readonly string[] {
  const document: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (!validate(document) || !isObject(document)) {
    return (validate.errors ?? [])
      .slice(0, 1)
      .map(({ instancePath, message = "" }) => `document${instancePath} ${message}`);
  }
  const { packages, relationships, documentDescribes } = document;
  const ids = idsOf(packages, "SPDXID");
  const known = new Set(["SPDXRef-DOCUMENT", ...ids]);
  const used = [
    ...idsOf(relationships, "spdxElementId"),
    ...idsOf(relationships, "relatedSpdxElement"),
    ...(Array.isArray(documentDescribes) ? documentDescribes.map(String) : []),
  ];
  const edges = Array.isArray(relationships) ? relationships.map((edge) => JSON.stringify(edge)) : [];
  const reached = new Set([...idsOf(relationships, "relatedSpdxElement"), ...used.slice(-1)]);
  return [
    ...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `two packages have the identifier ${id}`),
    ...edges.filter((edge, i) => edges.indexOf(edge) !== i).map((edge) => `the relationship ${edge} is there twice`),
    ...used.filter((id) => !known.has(id)).map((id) => `${id} is no package of the document`),
    ...ids.filter((id) => !reached.has(id)).map((id) => `no relationship leads to ${id}`),
  ];
}

function idsOf(list: unknown, key: string): readonly string[] {
  return Array.isArray(list) ? list.map((item) => (isObject(item) ? String(item[key]) : "")) : [];
}

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
