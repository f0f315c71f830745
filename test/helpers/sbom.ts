/** Reads SBOM documents strictly, and the build information of Go programs. */
import { type GoBuildInfo, type GoModule, parseBuildInfo } from "../../lib/go-buildinfo.ts";
import { isObject, readList } from "./registry-images.ts";
import { output } from "./world-programs.ts";

type Check = (value: unknown) => string | undefined;

const TEXT: Check = (value) => (typeof value === "string" && value !== "" ? undefined : "is no text");
const matching =
  (form: RegExp): Check =>
  (value) =>
    typeof value === "string" && form.test(value) ? undefined : `is not of the form ${form}`;
const one = (...values: readonly unknown[]): Check => {
  return (value) => (values.includes(value) ? undefined : `is not one of ${JSON.stringify(values)}`);
};
const listOf = (check: Check): Check => {
  return (value) => {
    if (!Array.isArray(value) || value.length === 0) return "is no list with an element";
    return value.flatMap((item, i) => [check(item)].flatMap((why) => (why === undefined ? [] : `[${i}] ${why}`)))[0];
  };
};
/** An object with exactly these fields; those whose name ends in "?" may be missing. */
const object = (fields: Readonly<Record<string, Check>>): Check => {
  return (value) => {
    if (!isObject(value)) return "is no object";
    const known = new Map(Object.entries(fields).map(([name, check]) => [name.replace(/\?$/, ""), check]));
    const stranger = Object.keys(value).find((name) => !known.has(name));
    if (stranger !== undefined) return `has an unknown field ${stranger}`;
    for (const [name, check] of known) {
      if (!(name in value) && `${name}?` in fields) continue;
      const why = check(value[name]);
      if (why !== undefined) return `.${name} ${why}`;
    }
    return undefined;
  };
};

const ID = matching(/^SPDXRef-[A-Za-z0-9.-]+$/);
const LICENSE = one("NOASSERTION", "NONE");
const LOCATION = matching(/^(?:NOASSERTION|NONE|https:\/\/[^\s/()]+\.[^\s/()]+\/[^\s()]+)$/);
const RELATION = one("CONTAINS", "DEPENDS_ON", "DESCENDANT_OF", "DESCRIBES", "VARIANT_OF");

const PACKAGE = object({
  SPDXID: ID,
  name: TEXT,
  "versionInfo?": TEXT,
  filesAnalyzed: one(false),
  licenseDeclared: LICENSE,
  licenseConcluded: LICENSE,
  downloadLocation: LOCATION,
  copyrightText: LICENSE,
  "primaryPackagePurpose?": one("CONTAINER", "APPLICATION", "LIBRARY"),
  "checksums?": listOf(object({ algorithm: one("SHA256"), checksumValue: matching(/^[0-9a-f]{64}$/) })),
  "externalRefs?": listOf(
    object({
      referenceCategory: one("PACKAGE-MANAGER"),
      referenceLocator: matching(/^pkg:(?:golang|oci)\/[^\s?#]+(?:\?[^\s?#]+)?$/),
      referenceType: one("purl"),
    }),
  ),
});

const DOCUMENT = object({
  SPDXID: one("SPDXRef-DOCUMENT"),
  name: TEXT,
  spdxVersion: one("SPDX-2.3"),
  creationInfo: object({
    created: matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    creators: listOf(matching(/^(?:Tool|Person|Organization): \S/)),
  }),
  dataLicense: one("CC0-1.0"),
  documentNamespace: matching(/^https?:\/\/[^\s#]+$/),
  documentDescribes: listOf(ID),
  packages: listOf(PACKAGE),
  relationships: listOf(object({ spdxElementId: ID, relationshipType: RELATION, relatedSpdxElement: ID })),
});

/** What is wrong with a document, one line each. */
export function findSpdxProblems(bytes: Uint8Array): readonly string[] {
  const document: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const problem = DOCUMENT(document);
  if (problem !== undefined || !isObject(document)) return [`document${problem ?? ""}`];
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
