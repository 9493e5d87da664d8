#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# usage: layering.sh [ROOT [BUILD]]
#
# Components include `common` and themselves, never each other; `common` includes nothing of ours.
# There is one include root, the repository (and BUILD, for generated headers): no "../", no bare
# "store.h". Every header compiles alone
# and twice. Says each breach on a line of its own; exit code 1 if there was any.
set -u -o pipefail
root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${2:-}
cd "$root" || exit 2

components="common agent fuse csi warm-job bench e2e"
breaches=0

breach() {
	echo "layering: $*"
	breaches=$((breaches + 1))
}

check_include() { # FILE LINE INCLUDED QUOTE
	local file=$1 line=$2 included=$3 quote=$4 own=${1%%/*} top=${3%%/*}

	case /$included/ in
	*/../*)
		breach "$file:$line: includes upward: $included"
		return
		;;
	esac
	if [ "$quote" = '<' ]; then
		case " $components " in
		*" $top "*) [ "$top" != "$included" ] &&
			breach "$file:$line: <$included> is ours; include it in quotes" ;;
		esac
		return
	fi
	if [ "$top" = "$included" ]; then
		breach "$file:$line: \"$included\" must be named from the root, as \"$own/$included\""
	elif [ "$top" != "$own" ] && [ "$top" != common ]; then
		breach "$file:$line: $own must not include $top ($included)"
	fi
}

# FILE:LINE:TEXT of every include line
includes() {
	local folder
	for folder in $components; do
		[ -d "$folder" ] || continue
		find "$folder" -type f \( -name '*.c' -o -name '*.h' \) -print0
	done | xargs -0 -r grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' --
}

pattern='^([^:]+):([0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*([<"])([^>"]+)[>"]'
count=0
while IFS= read -r text; do
	if [[ $text =~ $pattern ]]; then
		check_include "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "${BASH_REMATCH[4]}" \
			"${BASH_REMATCH[3]}"
		count=$((count + 1))
	else
		breach "not understood: $text"
	fi
done < <(includes)

cc=${CC:-gcc}
headers=0
if command -v "$cc" >/dev/null; then
	flags=(-std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DWD_VERSION='"0"' -I. -Wall -Wextra
		-Werror -Wno-unused-parameter -Wno-unused-function)
	[ -z "$build" ] || flags+=(-I "$build")
	for package in fuse3 libcurl libcrypto expat jansson yaml-0.1 lmdb libmicrohttpd libxxhash \
		libseccomp libprotobuf-c cmocka; do
		read -ra more < <(pkg-config --cflags "$package" 2>/dev/null)
		flags+=("${more[@]}")
	done
	while IFS= read -r -d '' header; do
		headers=$((headers + 1))
		if ! output=$("$cc" "${flags[@]}" -fsyntax-only -include "$header" -include "$header" \
			-x c /dev/null 2>&1); then
			breach "$header does not compile alone: $(grep -m1 error: <<<"$output")"
		fi
	done < <(for folder in $components; do
		[ -d "$folder" ] && find "$folder" -type f -name '*.h' -print0
	done)
fi

echo "layering: $count include lines, $headers headers alone, $breaches breaches"
[ "$breaches" -eq 0 ]
