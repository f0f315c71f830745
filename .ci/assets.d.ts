/** Files that are compiled into the executable: the import gives the path to read them from. */
declare module "*.zip" {
  const path: string;
  export default path;
}
