"""Where thumbnails are kept between being made and being used; `thumbnail_bank` makes and hands them out."""
